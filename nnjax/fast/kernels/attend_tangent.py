"""The tangents of attention's kernels, for gradients of gradients: the kernels themselves are not differentiated.

They are written by hand in plain JAX, which forms all products of queries with keys and can be differentiated. dot_x is the
tangent of x.
"""

import math
from typing import Any

from jax import Array

from ...linear import broadcast, widened
from ..attend_hidden import clear, finite, hide, numbers, visible
from ..attend_products import contract, exp_less

SCORES = "bhgqd,bhkd->bhgqk"  # q kᵀ, and ct_y vᵀ
VALUES = "bhgqk,bhkd->bhgqd"  # p v, and ct_s k
TRANSPOSED = "bhgqk,bhgqd->bhkd"  # pᵀ ct_y, and ct_sᵀ q


def _seen(q: Array, k: Array, causal: bool) -> Any:
    return visible(numbers(0, q.shape[-2]), numbers(0, k.shape[-2]), None, causal)


def _clean(xs: tuple[Array, ...], causal: bool) -> tuple[Array, ...]:
    """In at least float32; for causal attention only finite numbers, as 0 times NaN is NaN: log_z shows the others."""
    return tuple(finite(widened(x)) if causal else widened(x) for x in xs)


def _row(x: Array, like: Array) -> Array:
    """One number for each query, for all its keys."""
    return broadcast(x[..., None], like.shape)


def _weights(q: Array, k: Array, dot_q: Array, dot_k: Array, log_z: Array, causal: bool) -> tuple[Array, Array, Array]:
    """(p, dot_p, dot_log_z) for p = exp(s - log_z), s = q kᵀ / sqrt(d)."""
    seen, scale = _seen(q, k, causal), 1 / math.sqrt(q.shape[-1])
    p = clear(exp_less(hide(contract(SCORES, q, k) * scale, seen), log_z), seen)
    dot_s = (contract(SCORES, dot_q, k) + contract(SCORES, q, dot_k)) * scale  # the product rule
    dot_log_z = (p * dot_s).sum(-1)
    return p, p * (dot_s - _row(dot_log_z, p)), dot_log_z


def fwd_tangent(primals: tuple[Array, ...], log_z: Array, tangents: tuple[Array, ...], causal: bool) -> tuple[Array, Array]:
    """(dot_y, dot_log_z).  primals: (q, k, v) of `attend_fwd`; tangents: theirs."""
    dtype = primals[0].dtype
    (q, k, v), (dot_q, dot_k, dot_v) = _clean(primals, causal), map(widened, tangents)
    p, dot_p, dot_log_z = _weights(q, k, dot_q, dot_k, log_z, causal)
    return (contract(VALUES, dot_p, v) + contract(VALUES, p, dot_v)).astype(dtype), dot_log_z


def bwd_tangent(
    primals: tuple[Array, ...], log_z: Array, tangents: tuple[Array, ...], causal: bool
) -> tuple[Array, Array, Array]:
    """(dot_ct_q, dot_ct_k, dot_ct_v).  primals: (q, k, v, ct_y) of `attend_bwd`; tangents: theirs.

    y and log_z are functions of q, k and v, so their own tangents do not count.
    """
    dtype = primals[0].dtype
    (q, k, v, ct_y), (dot_q, dot_k, dot_v, dot_ct_y) = _clean(primals, causal), map(widened, tangents)
    scale = 1 / math.sqrt(q.shape[-1])
    p, dot_p, _ = _weights(q, k, dot_q, dot_k, log_z, causal)
    ct_p = contract(SCORES, ct_y, v)
    dot_ct_p = contract(SCORES, dot_ct_y, v) + contract(SCORES, ct_y, dot_v)
    less = ct_p - _row((p * ct_p).sum(-1), p)  # ct_s = p (ct_p - pᵀ ct_p), and the product rule again
    dot_less = dot_ct_p - _row((dot_p * ct_p + p * dot_ct_p).sum(-1), p)
    ct_s, dot_ct_s = p * less * scale, (dot_p * less + p * dot_less) * scale
    dot_ct_q = contract(VALUES, dot_ct_s, k) + contract(VALUES, ct_s, dot_k)
    dot_ct_k = contract(TRANSPOSED, dot_ct_s, q) + contract(TRANSPOSED, ct_s, dot_q)
    dot_ct_v = contract(TRANSPOSED, dot_p, ct_y) + contract(TRANSPOSED, p, dot_ct_y)
    return dot_ct_q.astype(dtype), dot_ct_k.astype(dtype), dot_ct_v.astype(dtype)
