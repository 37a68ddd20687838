"""Attention for many keys: one pair of blocks of queries and keys after another.

No array has the size queries times keys: a query's softmax is known except for its denominator, which grows from block to
block (Dao et al. 2022, algorithms 1 and 4).
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ...linear import broadcast, crop, pad, wide
from ..attend_hidden import clear, finite, hide, numbers, visible
from ..attend_products import contract, exp_less


def _pairs(rows: int, columns: int, n: int, m: int, causal: bool) -> tuple[Array, Array]:
    """(i, j) of every pair of blocks in which some query sees some key."""
    found = [(i, j) for i in range(rows // n) for j in range(columns // m) if not causal or j * m < (i + 1) * n]
    i, j = np.array(found, np.int32).reshape(-1, 2).T
    return jnp.asarray(i), jnp.asarray(j)


def _take(x, i, n: int, axis: int = -2):
    return lax.dynamic_slice_in_dim(x, i * n, n, x.ndim + axis)


def _put(x, y, i, n: int, axis: int = -2):
    return lax.dynamic_update_slice_in_dim(x, y, i * n, x.ndim + axis)


def _seen_in(pair, keep, n: int, m: int, causal: bool):
    """`_visible` for a pair of blocks."""
    i, j = pair
    return visible(numbers(i * n, n), numbers(j * m, m), None if keep is None else _take(keep, j, m, -1), causal)


def _widths(x, n: int, axis: int = -2) -> tuple[Any, ...]:
    """The zeros that make x's axis a multiple of n."""
    return tuple((0, -size % n if i == x.ndim + axis else 0) for i, size in enumerate(x.shape))


def _pad(x, n: int, axis: int = -2):
    return pad(x, _widths(x, n, axis))


def _pad_keep(keep, k, m: int):
    """keep, with the keys that padding adds hidden."""
    if k.shape[-2] % m == 0:
        return keep
    return _pad(jnp.ones((k.shape[0], k.shape[-2]), bool) if keep is None else keep, m, -1)


def _zeros(x):
    """Zeros made from x, so that they shard with it, in the dtype of its sums."""
    return (finite(x) * 0).astype(wide(x))


def blocks_fwd(q: Array, k: Array, v: Array, keep: Array | None, *, causal: bool, block: int) -> Any:
    """As `rows_fwd`."""
    n, m = min(block, q.shape[-2]), min(block, k.shape[-2])
    q_, k_, v_, keep_ = _pad(q, n), _pad(k, m), _pad(v, m), _pad_keep(keep, k, m)

    def step(carry, pair):
        i, j = pair
        y, top, z = (_take(t, i, n, axis) for t, axis in zip(carry, (-2, -1, -1)))
        s = hide(contract("bhgqd,bhkd->bhgqk", _take(q_, i, n), _take(k_, j, m)), _seen_in(pair, keep_, n, m, causal))
        new = lax.stop_gradient(jnp.maximum(top, s.max(-1)))  # y does not depend on it, but exp would overflow without it
        e, shrink = exp_less(s, new), jnp.exp(top - new)  # a larger maximum shrinks the earlier sums
        y = y * broadcast(shrink[..., None], y.shape) + contract("bhgqk,bhkd->bhgqd", e.astype(v.dtype), _take(v_, j, m))
        found = (y, new, z * shrink + e.sum(-1))
        return tuple(_put(t, f, i, n, axis) for t, f, axis in zip(carry, found, (-2, -1, -1))), None

    zeros = _zeros(q_)
    # Half the lowest number is below every score and above the hidden ones: a query without a key has exp(...) = 0.
    low = zeros[..., 0] + float(jnp.finfo(zeros.dtype).min) / 2
    pairs = _pairs(q_.shape[-2], k_.shape[-2], n, m, causal)
    (y, top, z), _ = lax.scan(step, (zeros, low, zeros[..., 0]), pairs)
    z = jnp.where(z == 0, jnp.ones_like(z), z)
    y = crop((y / broadcast(z[..., None], y.shape)).astype(q.dtype), _widths(q, n))
    return y, crop(top + jnp.log(z), _widths(q[..., 0], n, -1))


def blocks_bwd(
    q: Array, k: Array, v: Array, keep: Array | None, log_z: Array, delta: Array, ct_y: Array, *, causal: bool, block: int
) -> Any:
    """As `rows_bwd`."""
    n, m = min(block, q.shape[-2]), min(block, k.shape[-2])
    q_, k_, v_, keep_, ct_y_ = _pad(q, n), _pad(k, m), _pad(v, m), _pad_keep(keep, k, m), _pad(ct_y, n)
    log_z, delta = _pad(log_z, n, -1), _pad(delta, n, -1)

    def step(cts, pair):
        i, j = pair
        q_i, k_j, v_j, ct_i = _take(q_, i, n), _take(k_, j, m), _take(v_, j, m), _take(ct_y_, i, n)
        seen = _seen_in(pair, keep_, n, m, causal)
        p = exp_less(hide(contract("bhgqd,bhkd->bhgqk", q_i, k_j), seen), _take(log_z, i, n, -1))
        ct_p = contract("bhgqd,bhkd->bhgqk", ct_i, v_j)  # forward summed p v over keys k; back, over features d
        # softmax's Jacobian diag(p) - p pᵀ is its own transpose; pᵀ ct_p = yᵀ ct_y, so delta replaces whole rows of p.
        ct_s = clear(p * (ct_p - broadcast(_take(delta, i, n, -1)[..., None], p.shape)), seen).astype(q.dtype)
        found = (
            contract("bhgqk,bhkd->bhgqd", ct_s, k_j),
            contract("bhgqk,bhgqd->bhkd", ct_s, q_i),  # a key was copied to g heads and q queries: sum over both
            contract("bhgqk,bhgqd->bhkd", p.astype(v.dtype), ct_i),
        )
        blocks = ((i, n), (j, m), (j, m))
        return tuple(_put(ct, _take(ct, *at) + f, *at) for ct, f, at in zip(cts, found, blocks)), None

    pairs = _pairs(q_.shape[-2], k_.shape[-2], n, m, causal)
    (ct_q, ct_k, ct_v), _ = lax.scan(step, (_zeros(q_), _zeros(k_), _zeros(v_)), pairs)
    ct_q, ct_k, ct_v = (
        crop(ct_q, _widths(q, n)),
        crop(ct_k, _widths(k, m)),
        crop(ct_v, _widths(v, m)),
    )
    return ct_q, ct_k, ct_v
