"""Attention itself: for every query the average of the values, weighted by a softmax of its products with the keys.

Besides its arguments the pair keeps its output, and one number for each query, the logarithm of its softmax's denominator.
The backward forms the weights again. The plain pair forms all of them at once, by the same steps, so that straight code
forms them once; those of `nnjax.fast` form a few at a time, from q, k and that number (Dao et al. 2022).

A weight of 0 does not hide a value, as 0 times NaN is NaN. So a key or value that a causal query does not see is replaced
by a finite number, and a query that does see one that is not finite gets a score of NaN.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ..fast import attend_large as large
from ..fast.attend_hidden import both_finite, clear, finite, hide, kept, numbers, told, visible
from ..fast.attend_products import contract, exp_less
from ..fast.choose import as_it_is, by_platform
from ..fast.cpu import attend as cpu
from ..fast.kernels import attend as kernels
from ..linear import broadcast


def attend_apply(q: Array, k: Array, v: Array, keep: Array | None, *, causal: bool) -> Array:
    """y_i = sum_j p_ij v_j,  p_i = softmax over the visible j of q_i . k_j / sqrt(d); 0 if no key is visible.

    q: (b, h, g, s, d): h heads of keys, each serving g heads of queries; k, v: (b, h, t, d); keep: bool (b, t) or None,
    whether a key may be attended to; causal: query i sees only keys 0 ... i.  y: like q.
    """
    k, v = kept(k, keep), kept(v, keep)
    s = contract("bhgqd,bhkd->bhgqk", *((finite(q), finite(k)) if causal else (q, k))) * (1 / math.sqrt(q.shape[-1]))
    if causal:
        s = s + broadcast(told(q)[..., None], s.shape) + broadcast((told(k) + told(v))[:, :, None, None], s.shape)
    seen = visible(numbers(0, q.shape[-2]), numbers(0, k.shape[-2]), keep, causal)
    p = clear(jax.nn.softmax(hide(s, seen), axis=-1), seen)
    return contract("bhgqk,bhkd->bhgqd", p.astype(v.dtype), finite(v) if causal else v).astype(q.dtype)


def _weights(q: Array, k: Array, v: Array, keep: Array | None, causal: bool, held: Any) -> Any:
    """(p, s): the weights, and the scores whose softmax they are: NaN where a query sees a number that is not finite.

    held: applied to the maximum (`fast_fwd`).
    """
    s = contract("bhgqd,bhkd->bhgqk", q * (1 / math.sqrt(q.shape[-1])), k)
    if causal:  # infinite scores are NaN too
        s = s + 0 * s + broadcast(told(kept(v, keep))[:, :, None, None], s.shape)
    seen = visible(numbers(0, q.shape[-2]), numbers(0, k.shape[-2]), keep, causal)
    s = hide(s, seen)
    e = exp_less(s, held(jax.lax.stop_gradient(s.max(-1))))  # p does not depend on the maximum, but without it exp overflows
    return clear(e / broadcast(e.sum(-1, keepdims=True), e.shape), seen), s


def attend_fwd(q: Array, k: Array, v: Array, keep: Array | None, *, causal: bool, held: Any = as_it_is) -> Any:
    p, s = _weights(q, k, v, keep, causal, held)
    y = contract("bhgqk,bhkd->bhgqd", p.astype(v.dtype), finite(kept(v, keep)) if causal else kept(v, keep)).astype(q.dtype)
    # Half the lowest number is below every score and above the hidden ones: a query without a key has exp(s - log_z) = 0.
    log_z = jnp.maximum(jax.nn.logsumexp(s, -1), float(jnp.finfo(s.dtype).min) / 2)
    return y, (q, k, v, keep, y, log_z)


def attend_bwd(residuals: Any, ct_y: Array, *, causal: bool, held: Any = as_it_is) -> Any:
    q, k, v, keep, _, _ = residuals
    p, _ = _weights(q, k, v, keep, causal, held)
    ct_v = contract("bhgqk,bhgqd->bhkd", p.astype(v.dtype), ct_y)  # forward, p v summed over keys k; back, over queries q
    k, v = kept(k, keep), kept(v, keep)
    seen = visible(numbers(0, q.shape[-2]), numbers(0, k.shape[-2]), keep, causal)
    if causal:
        seen = p != 0  # stands for it: a weight of zero passes nothing back, and p is kept anyway
        q, k, v = *both_finite(q, k), finite(v)
    ct_p = contract("bhgqd,bhkd->bhgqk", ct_y, v)  # and over features d
    # softmax's Jacobian diag(p) - p pᵀ is its own transpose.
    ct_s = p * clear(ct_p - broadcast((p * ct_p).sum(-1, keepdims=True), p.shape), seen)
    ct_s = ct_s.astype(q.dtype)
    ct_q = contract("bhgqk,bhkd->bhgqd", ct_s, k)  # forward, q k summed over features d; back, over keys k
    ct_k = contract("bhgqk,bhgqd->bhkd", ct_s, q)  # and over queries q, and over the g heads that a key is copied to
    scale = 1 / math.sqrt(q.shape[-1])
    ct_q, ct_k = ct_q * scale, ct_k * scale  # a multiple is its own transpose
    return ct_q.astype(q.dtype), kept(ct_k.astype(k.dtype), keep), kept(ct_v.astype(v.dtype), keep)


def fast_fwd(q: Array, k: Array, v: Array, keep: Array | None, *, causal: bool, kernel: bool = False) -> Any:
    """`attend_fwd`, spelled for the platform; kernel: on a GPU or TPU that of `nnjax.fast.kernels`, if there is one."""
    # Separate the maximum from its use: a TPU's compiler would fuse both into a sliding maximum, and read all scores again.
    held = partial(_new, held=jax.lax.optimization_barrier)
    fast: dict[str, Callable[..., Any]] = {"cpu": cpu.attend_fwd, "cuda": partial(large.attend_fwd, plain=_new)}
    fast["tpu"] = partial(large.attend_fwd, plain=held)
    fast |= kernels.spellings_fwd(q, k, keep) if kernel else {}
    y, log_z = by_platform(q, k, v, keep, plain=_new, how={"causal": causal}, **fast)
    return y, (q, k, v, keep, y, log_z)


def _new(q, k, v, keep, *, causal, held=as_it_is):
    y, (*_, log_z) = attend_fwd(q, k, v, keep, causal=causal, held=held)
    return y, log_z


def fast_bwd(residuals: Any, ct_y: Array, *, causal: bool, kernel: bool = False) -> Any:
    """`attend_bwd`, spelled for the platform, or with its kernels."""
    held = partial(attend_bwd, held=jax.lax.optimization_barrier)
    fast: dict[str, Callable[..., Any]] = {"cpu": cpu.attend_bwd, "cuda": partial(large.attend_bwd, plain=attend_bwd)}
    fast["tpu"] = partial(large.attend_bwd, plain=held)
    fast |= kernels.spellings_bwd(residuals) if kernel else {}
    return by_platform(residuals, ct_y, plain=attend_bwd, how={"causal": causal}, **fast)
