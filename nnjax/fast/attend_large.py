"""Attention on a GPU or TPU: products of queries with keys in a few blocks of rows, each large enough to fill the chip.

The compiler could keep the products of one block while it makes those of the next, so each block waits for the previous one
(`optimization_barrier`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ..linear import broadcast, pad
from . import attend_finite
from .attend_hidden import clear, hide, numbers, visible
from .attend_products import contract, exp_less

KEYS, BLOCK_BYTES, MOST = 2048, 2**25, 8  # `attention, S = 2048` and `S = 4096` of the bench, compiled
TILE = 128  # queries: blocks that are not a multiple need copies


def attend_fwd(q: Array, k: Array, v: Array, keep: Array | None, *, causal: bool, plain: Callable[..., Any]) -> Any:
    """(y, log_z): the new arrays in the result of `nnjax.layers.attend.attend_fwd`.  plain: for few keys."""
    rows = rows_at_a_time(q, k.shape[-2])
    if rows is None:
        return plain(q, k, v, keep, causal=causal)
    return attend_finite.attend_fwd(q, k, v, keep, causal=causal, spelled=partial(rows_fwd, rows=rows))


def attend_bwd(residuals: Any, ct_y: Array, *, causal: bool, plain: Callable[..., Any]) -> Any:
    """As `nnjax.layers.attend.attend_bwd`."""
    rows = rows_at_a_time(residuals[0], residuals[1].shape[-2])
    if rows is None:
        return plain(residuals, ct_y, causal=causal)
    return attend_finite.attend_bwd(residuals, ct_y, causal=causal, spelled=partial(rows_bwd, rows=rows))


def rows_at_a_time(q: Array, keys: int) -> int | None:
    """Queries in a block, or None for all of them: from KEYS keys on at most BLOCK_BYTES of products in float32, but at
    most MOST blocks."""
    b, h, g, s, _ = q.shape
    if keys < KEYS or s < KEYS:
        return None
    blocks = min(MOST, -(-4 * b * h * g * s * keys // BLOCK_BYTES))
    rows = -(-s // max(1, blocks))
    return -(-rows // TILE) * TILE if blocks > 1 else None


def _blocks(queries: int, keys: int, rows: int, causal: bool) -> list[tuple[slice, int]]:
    """(queries, the number of keys that they see) of every block."""
    stops = [(start, min(start + rows, queries)) for start in range(0, queries, rows)]
    return [(slice(start, stop), stop if causal else keys) for start, stop in stops]


def _seen(keep: Array | None, rows: slice, t: int, causal: bool) -> Any:
    return visible(numbers(rows.start, rows.stop - rows.start), numbers(0, t), None if keep is None else keep[:, :t], causal)


def rows_fwd(q: Array, k: Array, v: Array, keep: Array | None, *, causal: bool, rows: int) -> Any:
    """(y, the logarithm of each query's denominator).  q: scaled, (b, h, g, s, d); k, v: (b, h, t, d); keep: (b, t)."""
    ys: list[Array] = []
    log_zs = []
    for block, t in _blocks(q.shape[-2], k.shape[-2], rows, causal):
        q_i = q[..., block, :]
        if ys:
            q_i, ys[-1] = lax.optimization_barrier((q_i, ys[-1]))
        s = hide(contract("bhgqd,bhkd->bhgqk", q_i, k[:, :, :t]), _seen(keep, block, t, causal))
        # Half the lowest number is below every score and above the hidden ones: a query without a key has exp(...) = 0.
        top = lax.stop_gradient(jnp.maximum(s.max(-1), float(jnp.finfo(s.dtype).min) / 2))  # without it exp overflows
        e = exp_less(s, top)
        z = e.sum(-1)
        z = jnp.where(z == 0, jnp.ones_like(z), z)
        y = contract("bhgqk,bhkd->bhgqd", e.astype(v.dtype), v[:, :, :t])
        ys.append((y / broadcast(z[..., None], y.shape)).astype(q.dtype))
        log_zs.append(top + jnp.log(z))
    return jnp.concatenate(ys, -2), jnp.concatenate(log_zs, -1)


def rows_bwd(
    q: Array, k: Array, v: Array, keep: Array | None, log_z: Array, delta: Array, ct_y: Array, *, causal: bool, rows: int
) -> Any:
    """(ct_q, ct_k, ct_v).  q, k, v, keep: as in `rows_fwd`; log_z: from there; delta: yᵀ ct_y of each query."""
    ct_qs: list[Array] = []
    ct_k = ct_v = None
    for block, t in reversed(_blocks(q.shape[-2], k.shape[-2], rows, causal)):  # the last sees all keys
        before = (q[..., block, :], ct_y[..., block, :], delta[..., block], ct_qs, ct_k, ct_v)
        q_i, ct_i, delta_i, ct_qs, ct_k, ct_v = lax.optimization_barrier(before)
        seen = _seen(keep, block, t, causal)
        p = exp_less(hide(contract("bhgqd,bhkd->bhgqk", q_i, k[:, :, :t]), seen), log_z[..., block])
        ct_p = contract("bhgqd,bhkd->bhgqk", ct_i, v[:, :, :t])  # forward summed p v over keys k; back, over features d
        # softmax's Jacobian diag(p) - p pᵀ is its own transpose; pᵀ ct_p = yᵀ ct_y, so delta stands for it.
        ct_s = clear(p * (ct_p - broadcast(delta_i[..., None], p.shape)), seen).astype(q.dtype)
        ct_qs = [contract("bhgqk,bhkd->bhgqd", ct_s, k[:, :, :t]), *ct_qs]
        # a key was copied to g heads and q queries: sum over both; rows see the first keys: add there
        ct_k = _plus(ct_k, contract("bhgqk,bhgqd->bhkd", ct_s, q_i))
        ct_v = _plus(ct_v, contract("bhgqk,bhgqd->bhkd", p.astype(v.dtype), ct_i))
    return jnp.concatenate(ct_qs, -2), ct_k, ct_v


def _plus(sums: Array | None, first: Array) -> Array:
    """sums, (b, h, t, d), with those of the first keys added."""
    if sums is None:
        return first
    return sums + pad(first, ((0, 0), (0, 0), (0, sums.shape[2] - first.shape[2]), (0, 0)))
