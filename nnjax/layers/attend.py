"""Attention proper: every query's average of the values, weighted by a softmax of its products with the keys.

The definition forms the matrix of all products. The hand-written pair never does: it keeps one number for each query (the
logarithm of its softmax's denominator), and forms the weights again on the way back (Dao et al. 2022).
"""

import math

import jax
import jax.numpy as jnp

from ..fast.attend_hidden import clear, finite, hide, kept, numbers, spoil, told, visible, who_is_seen, who_sees_no_number
from ..fast.cpu.attend_blocks import blocks_bwd, blocks_fwd, contract
from ..fast.cpu.attend_rows import rows_bwd, rows_fwd
from ..linear import broadcast

# How to go through the products, by the number of keys: (at most, spelling, queries at a time). Time of forward and
# backward, causal, over that of jax.grad of the definition, on 2 cores, ROWS of 64 / of 128 / BLOCKS of 64, 64, 128, 128:
# 256 keys (batch, heads, features: 8, 4, 32): 0.25 / 0.30 / 0.42; 64 (8, 4, 64): 0.71 / - / 0.78;
# 1,024 (1, 4, 64): 0.33 / 0.30 / 0.58; 2,048 (1, 4, 64): 0.25 / 0.23 / 0.37, but ROWS take 7 times the memory.
ROWS, BLOCKS = "rows", "blocks"
SPELLINGS = (
    (256, ROWS, 64),
    (1024, ROWS, 128),
    (math.inf, BLOCKS, 128),
)


def spelling(keys: int) -> tuple[str, int]:
    """(spelling, queries at a time) for so many keys."""
    return next((how, n) for most, how, n in SPELLINGS if keys <= most)


def attend_apply(q, k, v, keep, *, causal: bool):
    """y_i = sum_j p_ij v_j,  p_i = softmax over the visible j of q_i . k_j / sqrt(d); 0 where no key is visible.

    q: (b, h, g, s, d): h heads of keys, each serving g heads of queries; k, v: (b, h, t, d); keep: bool (b, t) or None,
    whether a key may be looked at; causal: query i sees keys 0 ... i alone.  y: like q.
    """
    k, v = kept(k, keep), kept(v, keep)
    s = contract("bhgqd,bhkd->bhgqk", *((finite(q), finite(k)) if causal else (q, k))) * (1 / math.sqrt(q.shape[-1]))
    if causal:  # what is not finite is told by the scores alone, which `hide` takes from those who may not see it
        s = s + broadcast(told(q)[..., None], s.shape) + broadcast((told(k) + told(v))[:, :, None, None], s.shape)
        v = finite(v)
    seen = visible(numbers(0, q.shape[-2]), numbers(0, k.shape[-2]), keep, causal)
    p = clear(jax.nn.softmax(hide(s, seen), axis=-1), seen)
    return contract("bhgqk,bhkd->bhgqd", p.astype(v.dtype), v).astype(q.dtype)


def attend_fwd(q, k, v, keep, *, causal: bool):
    k, v = kept(k, keep), kept(v, keep)
    scaled = q * (1 / math.sqrt(q.shape[-1]))
    if causal:  # a key is hidden from some queries and seen by others: finite numbers alone meet, and who sees more is NaN
        spoilt = who_sees_no_number(scaled, k, v, keep)
        scaled, k, v = finite(scaled), finite(k), finite(v)
    how, n = spelling(k.shape[-2])
    y, log_z = (rows_fwd if how == ROWS else blocks_fwd)(scaled, k, v, keep, causal=causal, block=n)
    if causal:
        y, log_z = spoil(y, spoilt[..., None]), spoil(log_z, spoilt)
    return y, (scaled, k, v, keep, y, log_z)


def attend_bwd(residuals, ct_y, *, causal: bool):
    q, k, v, keep, y, log_z = residuals
    delta = (ct_y.astype(log_z.dtype) * y.astype(log_z.dtype)).sum(-1)
    spoilt = jnp.isnan(log_z)
    if causal:
        log_z, delta = (jnp.where(spoilt, jnp.zeros_like(x), x) for x in (log_z, delta))
    how, n = spelling(k.shape[-2])
    ct_q, ct_k, ct_v = (rows_bwd if how == ROWS else blocks_bwd)(q, k, v, keep, log_z, delta, ct_y, causal=causal, block=n)
    ct_q = ct_q * (1 / math.sqrt(q.shape[-1]))  # the queries were scaled before all else: a multiple is its own transpose
    if causal:
        seen = who_is_seen(spoilt, k.shape[-2])
        ct_q, ct_k, ct_v = spoil(ct_q, spoilt[..., None]), spoil(ct_k, seen), spoil(ct_v, seen)
    return ct_q.astype(q.dtype), kept(ct_k.astype(k.dtype), keep), kept(ct_v.astype(v.dtype), keep)
