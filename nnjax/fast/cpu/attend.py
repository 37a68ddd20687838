"""Attention on a CPU, which never forms all products of queries with keys at once: the spelling by the number of keys."""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array

from ..attend_hidden import finite, kept, spoil, who_is_seen, who_sees_no_number
from .attend_blocks import blocks_bwd, blocks_fwd
from .attend_rows import rows_bwd, rows_fwd

# (At most so many keys, spelling, queries at a time): decided by `attention causal` and `attention S=...` of the bench.
ROWS, BLOCKS = "rows", "blocks"
SPELLINGS = (
    (256, ROWS, 64),
    (1024, ROWS, 128),
    (math.inf, BLOCKS, 128),
)


def spelling(keys: int) -> tuple[str, int]:
    """(spelling, queries at a time) for so many keys."""
    return next((how, n) for most, how, n in SPELLINGS if keys <= most)


def attend_fwd(q: Array, k: Array, v: Array, keep: Array | None, *, causal: bool) -> Any:
    """(y, log_z): what is new of what `nnjax.layers.attend.attend_fwd` gives, of the same arguments."""
    q, k, v = q * (1 / math.sqrt(q.shape[-1])), kept(k, keep), kept(v, keep)
    if causal:  # a key is hidden from some queries and seen by others: finite numbers alone meet, and who sees more is NaN
        spoilt = who_sees_no_number(q, k, v, keep)
        q, k, v = finite(q), finite(k), finite(v)
    how, n = spelling(k.shape[-2])
    y, log_z = (rows_fwd if how == ROWS else blocks_fwd)(q, k, v, keep, causal=causal, block=n)
    return (spoil(y, spoilt[..., None]), spoil(log_z, spoilt)) if causal else (y, log_z)


def attend_bwd(residuals: Any, ct_y: Array, *, causal: bool) -> Any:
    """As `nnjax.layers.attend.attend_bwd`."""
    q, k, v, keep, y, log_z = residuals
    q, k, v = q * (1 / math.sqrt(q.shape[-1])), kept(k, keep), kept(v, keep)
    delta = (ct_y.astype(log_z.dtype) * y.astype(log_z.dtype)).sum(-1)
    spoilt = jnp.isnan(log_z)
    if causal:
        q, k, v = finite(q), finite(k), finite(v)
        log_z, delta = (jnp.where(spoilt, jnp.zeros_like(x), x) for x in (log_z, delta))
    how, n = spelling(k.shape[-2])
    ct_q, ct_k, ct_v = (rows_bwd if how == ROWS else blocks_bwd)(q, k, v, keep, log_z, delta, ct_y, causal=causal, block=n)
    ct_q = ct_q * (1 / math.sqrt(q.shape[-1]))
    if causal:
        seen = who_is_seen(spoilt, k.shape[-2])
        ct_q, ct_k, ct_v = spoil(ct_q, spoilt[..., None]), spoil(ct_k, seen), spoil(ct_v, seen)
    return ct_q.astype(q.dtype), kept(ct_k.astype(k.dtype), keep), kept(ct_v.astype(v.dtype), keep)
