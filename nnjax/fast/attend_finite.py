"""Attention with hidden keys: give a spelling of `attend` finite numbers where causal queries do not see a key."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from .attend_hidden import finite, kept, spoil, who_is_seen, who_sees_no_number


def attend_fwd(q: Array, k: Array, v: Array, keep: Array | None, *, causal: bool, spelled: Callable[..., Any]) -> Any:
    """(y, log_z): the new arrays in the result of `nnjax.layers.attend.attend_fwd`, for the same arguments.

    spelled(q, k, v, keep, causal=causal) computes them from scaled queries, with 0 for masked keys and values.
    """
    q, k, v = q * (1 / math.sqrt(q.shape[-1])), kept(k, keep), kept(v, keep)
    if not causal:
        return spelled(q, k, v, keep, causal=causal)
    # A key is hidden from some queries and seen by others: use only finite numbers, and make queries that see others NaN.
    spoilt = who_sees_no_number(q, k, v, keep)
    y, log_z = spelled(finite(q), finite(k), finite(v), keep, causal=causal)
    return spoil(y, spoilt[..., None]), spoil(log_z, spoilt)


def attend_bwd(residuals: Any, ct_y: Array, *, causal: bool, spelled: Callable[..., Any]) -> Any:
    """Like `nnjax.layers.attend.attend_bwd`.

    spelled(q, k, v, keep, log_z, delta, ct_y, causal=causal) computes the cotangents of such q, k and v.
    """
    q, k, v, keep, y, log_z = residuals
    q, k, v = q * (1 / math.sqrt(q.shape[-1])), kept(k, keep), kept(v, keep)
    delta = (ct_y.astype(log_z.dtype) * y.astype(log_z.dtype)).sum(-1)
    spoilt = jnp.isnan(log_z)
    if causal:
        q, k, v = finite(q), finite(k), finite(v)
        log_z, delta = (jnp.where(spoilt, jnp.zeros_like(x), x) for x in (log_z, delta))
    ct_q, ct_k, ct_v = spelled(q, k, v, keep, log_z, delta, ct_y, causal=causal)
    ct_q = ct_q * (1 / math.sqrt(q.shape[-1]))
    if causal:
        seen = who_is_seen(spoilt, k.shape[-2])
        ct_q, ct_k, ct_v = spoil(ct_q, spoilt[..., None]), spoil(ct_k, seen), spoil(ct_v, seen)
    return ct_q.astype(q.dtype), kept(ct_k.astype(k.dtype), keep), kept(ct_v.astype(v.dtype), keep)
