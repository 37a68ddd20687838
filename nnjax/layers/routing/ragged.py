"""Products of rows with the matrix of their group, such as tokens with that of their expert, each above its transposes.

Rows lie sorted by group. The product is linear in the rows and in the matrices, so it has two transposes: to the rows, each
group's matrix transposed; to the matrices, of each group the sum over its own rows. No row is padded, none is dropped.
"""

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...fast.choose import by_platform
from ...fast.cpu import ragged as cpu
from ...linear import broadcast
from ...trees.modes import in_both_modes

OVER_ROWS = lax.RaggedDotDimensionNumbers((((0,), (0,)), ((), ())), lhs_ragged_dimensions=[0], rhs_group_dimensions=[])


def _folded(f: Callable[..., Array], rows: int) -> Callable[..., Array]:
    """f(a, b, sizes), under `vmap` one call with the groups of all examples, as JAX's rules take few kinds of batches.

    rows: how many of a and b have rows; the other has groups, and the result what f makes of them.
    """
    one = jax.custom_batching.custom_vmap(f)

    @one.def_vmap
    def rule(n: int, batched: Any, *args: Array) -> Any:
        *ab, sizes = (a if there else broadcast(a[None], (n, *a.shape)) for a, there in zip(args, batched))
        total, m = sizes.sum(1, dtype=sizes.dtype), ab[0].shape[1]
        real = broadcast(jnp.arange(m, dtype=sizes.dtype)[None], (n, m)) < broadcast(total[:, None], (n, m))
        ab = [_kept(a, real) for a in ab[:rows]] + ab[rows:]  # rows in no group count as zeros of the last
        sizes = sizes.at[:, -1].add(m - total)
        y = one(*(a.reshape(-1, *a.shape[2:]) for a in (*ab, sizes)))
        return y.reshape(n, -1, *y.shape[1:]), True

    return one


def _bilinear(f: Callable[..., Array], rows: int, bwd: Callable[..., tuple[Array, Array]]) -> Any:
    """f(a, b, sizes), linear in a and in b, whose derivatives are other products of this module, in both modes.

    bwd(a, b, sizes, ct) -> (ct_a, ct_b).
    """
    folded = _folded(f, rows)
    named = jax.custom_vjp(update_wrapper(lambda a, b, sizes: folded(a, b, sizes), f))

    def fwd(a, b, sizes):
        return folded(a, b, sizes), (a, b, sizes)

    def pulled(residuals, ct):
        return *bwd(*residuals, ct), None

    named.defvjp(fwd, pulled)
    return update_wrapper(in_both_modes(named, fwd, pulled, f.__name__), f)


def _kept(a: Array, real: Array) -> Array:
    return jnp.where(broadcast(real[:, :, None], a.shape), a, jnp.zeros_like(a))


@partial(_bilinear, rows=1, bwd=lambda x, w, sizes, ct: (ragged_dot_t(ct, w, sizes), ragged_outer(x, ct, sizes)))
def ragged_dot(x: Array, w: Array, sizes: Array) -> Array:
    """y_r = x_r W_e, e the group of row r.  x: (rows, k), sorted by group; w: (groups, k, n); sizes: int32 (groups,), the
    rows of each group; y: (rows, n).

    Its transposes are `ragged_dot_t` and `ragged_outer`.
    """
    return lax.ragged_dot(x, w, sizes)


@partial(_bilinear, rows=1, bwd=lambda ct_y, w, sizes, ct: (ragged_dot(ct, w, sizes), ragged_outer(ct, ct_y, sizes)))
def ragged_dot_t(ct_y: Array, w: Array, sizes: Array) -> Array:
    """ct_x_r = ct_y_r W_eᵀ: forward, output j sums down column j of W_e; backward, input i sums along its row i."""
    return lax.ragged_dot(ct_y, w.mT, sizes)


@partial(_bilinear, rows=2, bwd=lambda x, ct_y, sizes, ct: (ragged_dot_t(ct_y, ct, sizes), ragged_dot(x, ct, sizes)))
def ragged_outer(x: Array, ct_y: Array, sizes: Array) -> Array:
    """ct_W_e = sum over the rows r of group e of x_rᵀ ct_y_r: the matrix was copied to each of its rows."""
    return lax.ragged_dot_general(x, ct_y, sizes, OVER_ROWS)


class Products(NamedTuple):
    """The three, in one spelling."""

    dot: Callable[[Array, Array, Array], Array]
    dot_t: Callable[[Array, Array, Array], Array]
    outer: Callable[[Array, Array, Array], Array]


def _fast_dot(x: Array, w: Array, sizes: Array) -> Array:
    return by_platform(x, w, sizes, plain=ragged_dot, cpu=cpu.ragged_dot)


def _fast_dot_t(ct_y: Array, w: Array, sizes: Array) -> Array:
    return by_platform(ct_y, w, sizes, plain=ragged_dot_t, cpu=cpu.ragged_dot_t)


def _fast_outer(x: Array, ct_y: Array, sizes: Array) -> Array:
    return by_platform(x, ct_y, sizes, plain=ragged_outer, cpu=cpu.ragged_outer)


PLAIN, FAST = Products(ragged_dot, ragged_dot_t, ragged_outer), Products(_fast_dot, _fast_dot_t, _fast_outer)
