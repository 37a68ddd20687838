"""Products of rows with the matrix of their group, and mixtures of experts, inside anyone's `jax.grad`."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from .. import layers
from ..errors import describe, expect_array, expect_float, expect_positive, expect_same_dtype
from ..layer import as_custom_vjp
from ..layers.routing.ragged import FAST
from ..trees.modes import in_both_modes
from ..trees.varying import together
from .remembered import remembered


@jax.custom_vjp
def _ragged_dot(x, w, sizes):
    return FAST.dot(x, w, sizes)


def _ragged_dot_bwd(residuals, ct_y):
    x, w, sizes = residuals
    return FAST.dot_t(ct_y, w, sizes), FAST.outer(x, ct_y, sizes), None


def _ragged_dot_fwd(x, w, sizes):
    return FAST.dot(x, w, sizes), (x, w, sizes)


_ragged_dot.defvjp(_ragged_dot_fwd, _ragged_dot_bwd)
_ragged = in_both_modes(_ragged_dot, _ragged_dot_fwd, _ragged_dot_bwd, "ops.ragged_dot")


def ragged_dot(x: Array, w: Array, sizes: Array) -> Array:
    """y_r = x_r W_e for the rows r of group e: `jax.lax.ragged_dot`, with both transposes by hand.

    x: (rows, k), sorted by group; w: (groups, k, n); sizes: integers (groups,), the rows of each group, rows in all;
    y: (rows, n).  ct_x: each group's matrix transposed; ct_w: of each group the sum of x_rᵀ ct_y_r over its rows.
    On a CPU each row meets its own matrix alone, where JAX multiplies it with all of them.
    Raises TypeError or ValueError where these do not fit.

    >>> x, w, sizes = jnp.ones((5, 3)), jnp.ones((2, 3, 4)), jnp.array([4, 1])
    >>> jax.grad(lambda w: nnjax.ops.ragged_dot(x, w, sizes).sum())(w)[:, 0, 0].tolist()
    [4.0, 1.0]
    """
    who = "ops.ragged_dot"
    expect_float(who, "x", x)
    expect_float(who, "w", w)
    expect_same_dtype(who, "x", x, "w", w)
    expect_array(who, "sizes", sizes)
    if not jnp.issubdtype(sizes.dtype, jnp.integer):
        raise TypeError(f"{who}: sizes must be integers, got {describe(sizes)}; convert them with sizes.astype(jnp.int32).")
    if x.ndim != 2 or w.ndim != 3 or x.shape[1] != w.shape[1] or sizes.shape != w.shape[:1]:
        raise ValueError(
            f"{who}: shapes must be (rows, k) for x, (groups, k, n) for w and (groups,) for sizes, got {describe(x)}, "
            f"{describe(w)} and {describe(sizes)}."
        )
    return _ragged(*together((x, w, jnp.asarray(sizes, jnp.int32))))


_mixture = remembered(lambda *sizes, **how: as_custom_vjp(layers.mixture_of_experts(*sizes, **how)))


def mixture_of_experts(
    x: Array, router: Array, up: Array, down: Array, *, top_k: int, activation: Literal["swiglu", "gelu"] = "swiglu",
    over: Literal["chosen", "all"] | None = None, balance: float | None = None, z: float | None = None,
) -> Any:  # fmt: skip
    """y = sum of g_e f_e(x) over the top_k experts e of each x: `nnjax.mixture_of_experts` with its matrices given.

    x, y: (..., n); router: (n, experts); up: (experts, n, hidden), for "swiglu" (experts, n, 2 hidden), the gate's columns
    first; down: (experts, hidden, n).  With balance or z the result is (y, losses).  Raises as `nnjax.mixture_of_experts` does.

    >>> x, router = jnp.ones((5, 4)), jnp.ones((4, 3))
    >>> up, down = jnp.ones((3, 4, 16)), jnp.ones((3, 8, 4))
    >>> nnjax.ops.mixture_of_experts(x, router, up, down, top_k=2).shape
    (5, 4)
    """
    who = "ops.mixture_of_experts"
    if getattr(down, "ndim", 0) != 3:
        raise ValueError(f"{who}: down must have shape (experts, hidden, n), got {describe(down)}.")
    (top_k,), (experts, hidden, n) = expect_positive(who, top_k=top_k), down.shape
    f = _mixture(n, hidden, experts, top_k, activation=activation, over=over, balance=balance, z=z)
    return f(*together((layers.MixtureParams(router, up, down), x)))
