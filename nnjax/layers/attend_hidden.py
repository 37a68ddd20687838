"""Who sees what in attention. What nobody may look at reaches neither output nor gradient, whatever it holds.

A weight of zero does not see to that by itself: 0 times NaN, or infinity, is NaN.
"""

import jax.numpy as jnp
import numpy as np

from ..linear import broadcast


def numbers(first, n: int):
    return first + jnp.arange(n, dtype=jnp.int32)


def visible(rows, columns, keep, causal: bool):
    """bool (b, 1, 1, q, k) or (1, 1, 1, q, k), or None: which keys (columns) these queries (rows) may look at."""
    seen = None if keep is None else keep[:, None, None, None]
    if causal:
        shape = (1, 1, 1, rows.size, columns.size)
        before = broadcast(rows[:, None], shape) >= broadcast(columns[None], shape)
        seen = before if seen is None else jnp.logical_and(before, seen)
    return seen


def hide(s, seen):
    """The scores, with the least finite number where a key is not visible."""
    return s if seen is None else jnp.where(broadcast(seen, s.shape), s, jnp.full_like(s, jnp.finfo(s.dtype).min))


def clear(p, seen):
    """p, with 0 where a key is not visible."""
    return p if seen is None else jnp.where(broadcast(seen, p.shape), p, jnp.zeros_like(p))


def kept(x, keep):
    """x: (b, h, t, d), with 0 for the keys that nobody may look at; keep: bool (b, t) or None.  It is its own transpose."""
    return x if keep is None else clear(x, keep[:, None, :, None])


def finite(x):
    """x, with 0 for every entry that is NaN or infinite."""
    return jnp.where(jnp.isfinite(x), x, jnp.zeros_like(x))


def told(x):
    """For each row: 0, or NaN if one of its entries is NaN or infinite.  (..., d) -> (...), in at least float32."""
    return (x * 0).sum(-1).astype(np.promote_types(x.dtype, np.float32))


def marked(q, k, v):
    """(q, k, v) for the causal line, behind which a key is hidden from some queries and seen by others.

    A value is 0 where it was not finite, and its key NaN instead, as is every entry of q and k that was not finite: so the
    scores alone carry NaN to who sees it, and `hide` keeps it from all others.
    """
    return q + q * 0, k + (k * 0 + v * 0), finite(v)
