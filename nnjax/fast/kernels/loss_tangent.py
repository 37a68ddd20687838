"""The tangents of the linear cross-entropy's kernels, for gradients of gradients: the kernels are not differentiated.

They are written by hand in plain JAX, which forms all scores and can be differentiated. dot_x is the tangent of x.
"""

import jax.numpy as jnp
from jax import Array

from ...linear import broadcast, widened
from ..attend_products import contract

SCORES = "nd,vd->nv"  # h wᵀ
ROWS = "nv,vd->nd"  # ct_s w
TABLE = "nv,nd->vd"  # ct_sᵀ h


def _column(x: Array, like: Array) -> Array:
    """One number for each row, for all its classes."""
    return broadcast(x[:, None], like.shape)


def tangent(
    rows: Array, w: Array, labels: Array, share: Array, dot_rows: Array, dot_w: Array, dot_share: Array
) -> tuple[Array, Array, Array]:
    """(dot_losses, dot_ct_h, dot_ct_w) of `nnjax.losses.fused.gradient_of_rows` at (rows, w, labels, share)."""
    dtype = share.dtype
    rows, w, dot_rows, dot_w = map(widened, (rows, w, dot_rows, dot_w))
    s = contract(SCORES, rows, w)
    e = jnp.exp(s - _column(s.max(-1), s))
    p = e / _column(e.sum(-1), e)
    hit = _column(labels, s) == broadcast(jnp.arange(w.shape[0], dtype=jnp.int32)[None], s.shape)
    less = p - hit.astype(p.dtype)  # ct_s = share (p - onehot)
    dot_s = contract(SCORES, dot_rows, w) + contract(SCORES, rows, dot_w)  # the product rule
    dot_p = p * (dot_s - _column((p * dot_s).sum(-1), p))
    ct_s, dot_ct_s = _column(share, p) * less, _column(dot_share, p) * less + _column(share, p) * dot_p
    dot_ct_h = contract(ROWS, dot_ct_s, w) + contract(ROWS, ct_s, dot_w)
    dot_ct_w = contract(TABLE, dot_ct_s, rows) + contract(TABLE, ct_s, dot_rows)
    return (less * dot_s).sum(-1).astype(dtype), dot_ct_h.astype(dtype), dot_ct_w.astype(dtype)
