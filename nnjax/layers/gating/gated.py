"""Gated dense layers, the feed-forward part of a Llama block: two dense maps, one gating the other, and a third (Shazeer 2020).

Of their three products with `hidden` features two are kept, the gate before its activation and what it gates; the backward
forms the third from them again.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ...errors import expect_params, expect_positive, expect_shape
from ...layer import Layer
from ...leaf import leaf
from ...linear import wide
from ..activation import gelu, silu
from ..dense import DenseParams, dense, dense_apply, dense_bwd, fast_product
from .gate import gate_apply, gate_bwd


class GatedParams(NamedTuple):
    """gate, up: (n, hidden); down: (hidden, n); none has a bias. See `swiglu`."""

    gate: DenseParams
    up: DenseParams
    down: DenseParams


def gated_apply(params: Any, x: Array, *, key: Any = None, act: Layer) -> Array:
    """y = (act(x W_gate) * (x W_up)) W_down.  x, y: (..., n)."""
    halves = dense_apply(params.gate, x), dense_apply(params.up, x)
    return dense_apply(params.down, gate_apply(halves, act))


def gated_fwd(params: Any, x: Array, *, key: Any = None, act: Layer) -> Any:
    halves = dense_apply(params.gate, x), dense_apply(params.up, x)
    return dense_apply(params.down, gate_apply(halves, act)), (params, x, halves)


def gated_bwd(residuals: Any, ct_y: Array, *, act: Layer, product: Any = jnp.matmul, formed: Any = None) -> Any:
    """product, formed: the matrix product and the activation in other spellings."""
    params, x, halves = residuals
    a = act.apply((), halves[0]) if formed is None else formed(halves[0])  # formed again, not kept
    ct_down, ct_through = dense_bwd((params.down, a * halves[1]), ct_y, product=product)
    ct_gate, ct_up = gate_bwd((*halves, a), ct_through, act)
    ct_w_gate, ct_x = dense_bwd((params.gate, x), ct_gate, product=product)
    ct_w_up, ct_x_up = dense_bwd((params.up, x), ct_up, product=product)
    # x was copied to both halves: the transpose of a copy is a sum
    return GatedParams(ct_w_gate, ct_w_up, ct_down), ct_x + ct_x_up


def silu_by_division(x: Array) -> Array:
    """x / (1 + exp(-x)): `silu` with the division last.  x: any shape.

    A compiler keeps what is costly to form again: this, which needs no x any more, and not a sigmoid beside x.
    """
    x, dtype = x.astype(wide(x)), x.dtype
    least = -1.01 * math.log(float(jnp.finfo(x.dtype).max))  # below it exp(-x) is infinite, and the quotient 0
    x = jnp.maximum(x, jnp.full_like(x, least))
    return (x / (1 + jnp.exp(-x))).astype(dtype)


def _gated(
    name: str, act: Layer, n: int, hidden: int, init: Any, init_out: Any, formed: Callable[[Array], Array] | None = None
) -> Layer[Array]:
    n, hidden = expect_positive(name, n=n, hidden=hidden)
    inner = dense(n, hidden, bias=False, init=init)
    out = dense(hidden, n, bias=False, init=init if init_out is None else init_out)

    def init_params(key):
        k_gate, k_up, k_down = jax.random.split(key, 3)
        return GatedParams(inner.init(k_gate), inner.init(k_up), out.init(k_down))

    def checked(f):
        def run(params, x, *, key=None):
            expect_params(name, params, GatedParams)
            for field, part, shape in zip(params._fields, params, ((n, hidden), (n, hidden), (hidden, n))):
                expect_params(f"{name}: {field}", part, DenseParams)
                expect_shape(name, f"{field}.w", part.w, shape)
            return f(params, x, act=act)

        return run

    bwd = partial(gated_bwd, act=act)
    return leaf(
        f"{name}({n}, {hidden})", init_params, checked(gated_apply), checked(gated_fwd), bwd,
        lambda residuals: residuals[1],  # x: y is like it
        fast=(checked(gated_fwd), partial(bwd, product=fast_product, formed=formed)),
    )  # fmt: skip


def swiglu(
    n: int, hidden: int, *, init: Callable[..., Array] | None = None, init_out: Callable[..., Array] | None = None
) -> Layer[Array]:
    """y = (silu(x W_gate) * (x W_up)) W_down, silu(g) = g sigmoid(g).  x, y: (..., n); W_gate, W_up: (n, hidden).

    Each half of the product is the factor of the other's cotangent, and x, which was copied to both, gets the sum of two:
    ct_x = ct_gate W_gateᵀ + ct_up W_upᵀ.  The activation is computed again in the backward, so that two numbers for each
    hidden feature are kept, not the four or five of autodiff.  init and init_out make W_gate and W_up, and W_down, by default
    as `dense` does.  Shazeer 2020, eq. 6.
    Raises ValueError for sizes that are not positive ints, or parameters of other shapes.

    >>> layer = nnjax.swiglu(4, 11)
    >>> layer.apply(layer.init(jax.random.key(0)), jnp.ones((2, 3, 4))).shape
    (2, 3, 4)
    """
    return _gated("swiglu", silu(), n, hidden, init, init_out, silu_by_division)


def geglu(
    n: int, hidden: int, *, approximate: bool = False, init: Callable[..., Array] | None = None,
    init_out: Callable[..., Array] | None = None,
) -> Layer[Array]:  # fmt: skip
    """y = (gelu(x W_gate) * (x W_up)) W_down: `swiglu` with another activation.  x, y: (..., n); W_gate, W_up: (n, hidden).

    Its transpose is as there.  approximate: the tanh formula of `gelu`.  Shazeer 2020, eq. 6.
    Raises ValueError for sizes that are not positive ints, or parameters of other shapes.

    >>> layer = nnjax.geglu(4, 11, approximate=True)
    >>> layer.apply(layer.init(jax.random.key(0)), jnp.ones((2, 3, 4))).shape
    (2, 3, 4)
    """
    return _gated("geglu", gelu(approximate), n, hidden, init, init_out)
