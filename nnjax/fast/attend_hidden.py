"""Which query sees which key in attention. Masked numbers affect neither output nor gradient, whatever they are.

A weight of zero alone does not ensure that: 0 times NaN, or infinity, is NaN.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

from ..linear import broadcast, wide


def numbers(first: Any, n: int) -> Array:
    return first + jnp.arange(n, dtype=jnp.int32)


def visible(rows: Array, columns: Any, keep: Array | None, causal: bool) -> Array | None:
    """bool (b, 1, 1, q, k) or (1, 1, 1, q, k), or None: which keys (columns) these queries (rows) may see."""
    seen = None if keep is None else keep[:, None, None, None]
    if causal:
        shape = (1, 1, 1, rows.size, columns.size)
        before = broadcast(rows[:, None], shape) >= broadcast(columns[None], shape)
        seen = before if seen is None else jnp.logical_and(before, seen)
    return seen


def hide(s: Array, seen: Array | None) -> Array:
    """The scores, with the lowest finite number where a key is not visible."""
    return s if seen is None else jnp.where(broadcast(seen, s.shape), s, jnp.full_like(s, jnp.finfo(s.dtype).min))


def clear(p: Array, seen: Array | None) -> Array:
    """p, with 0 where a key is not visible."""
    return p if seen is None else jnp.where(broadcast(seen, p.shape), p, jnp.zeros_like(p))


def kept(x: Array, keep: Array | None) -> Array:
    """x: (b, h, t, d), with 0 for masked keys; keep: bool (b, t) or None.  It is its own transpose."""
    return x if keep is None else clear(x, keep[:, None, :, None])


def finite(x: Array) -> Array:
    """x, with 0 for every entry that is NaN or infinite."""
    return jnp.where(jnp.isfinite(x), x, jnp.zeros_like(x))


def both_finite(q: Array, k: Array) -> tuple[Array, Array]:
    """`finite` of both, joined, so that a GPU does it in one launch."""
    both = finite(jnp.concatenate([q.reshape(q.size), k.reshape(k.size)]))
    return both[: q.size].reshape(q.shape), both[q.size :].reshape(k.shape)


def told(x: Array) -> Array:
    """For each row: 0, or NaN if one of its entries is NaN or infinite.  (..., d) -> (...), in at least float32."""
    return (x * 0).sum(-1).astype(wide(x))


def who_sees_no_number(q: Array, k: Array, v: Array, keep: Array | None) -> Array:
    """bool (b, h, g, s): the causal queries that see a key or value that is not finite, or that see a key but are not
    finite themselves.

    A query sees the keys up to its own place, so the first bad one decides.  k, v: with 0 for masked keys.
    """

    def sees(keys):
        places = broadcast(numbers(0, keys.shape[-1]), keys.shape)
        first = jnp.where(keys, places, jnp.full_like(places, keys.shape[-1])).min(-1)
        return broadcast(numbers(0, q.shape[-2]), q.shape[:-1]) >= broadcast(first[:, :, None, None], q.shape[:-1])

    bad_q = jnp.logical_not(jnp.isfinite(q).all(-1))
    if keep is not None:
        bad_q &= sees(broadcast(keep[:, None], k.shape[:-1]))
    return bad_q | sees(jnp.logical_not(jnp.isfinite(k).all(-1) & jnp.isfinite(v).all(-1)))


def who_is_seen(spoilt: Any, keys: int) -> Array:
    """bool (b, h, keys, 1): the keys up to the last of these queries, which sees them all.  spoilt: bool (b, h, g, s)."""
    places = broadcast(numbers(0, spoilt.shape[-1]), spoilt.shape)
    last = jnp.where(spoilt, places, jnp.full_like(places, -1)).max((-2, -1))
    shape = (*last.shape, keys, 1)
    return broadcast(numbers(0, keys)[:, None], shape) <= broadcast(last[:, :, None, None], shape)


def spoil(x: Array, where: Any) -> Array:
    """x, with NaN at `where`."""
    return jnp.where(broadcast(where, x.shape), jnp.full_like(x, jnp.nan), x)
