"""A linear map to many classes and the cross-entropy of its outputs in one: the N x V outputs are never kept.

The gradient of a softmax's cross-entropy is known as soon as its outputs are, and the cotangent of a mean is one number.
So the forward computes the gradient of the rows while their outputs exist, and the backward multiplies by that number.
The plain pair takes all rows at once, that of a CPU a chunk of them.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..errors import describe, expect_flag, expect_float, expect_params, expect_same_dtype
from ..fast.choose import by_platform
from ..fast.cpu import linear_cross_entropy as cpu
from ..fast.gpu import linear_cross_entropy as gpu
from ..fast.kernels import loss as kernels
from ..layer import Layer
from ..leaf import Like, leaf
from ..linear import broadcast, fold, wide
from .means import (
    class_numbers,
    expect_classes,
    expect_weights,
    looked_at,
    mean_apply,
    softmax_cross_entropy_apply,
    weighted_mean_apply,
    weighted_mean_bwd,
)

NAME = "linear_cross_entropy"


def _checked(params, x):
    expect_params(NAME, params, tuple)
    if not isinstance(x, tuple) or len(x) not in (2, 3) or not isinstance(x[0], tuple) or len(x[0]) != 2:
        raise TypeError(
            f"{NAME}: x must be ((h, w), labels) or ((h, w), labels, weights), got {describe(x)}; "
            "a model made with fused=True outputs (h, w)."
        )
    (h, w), labels, *weights = x
    expect_float(NAME, "h", h)
    expect_float(NAME, "w", w)
    expect_same_dtype(NAME, "h", h, "w", w)
    if w.ndim != 2 or h.ndim < 1 or h.shape[-1] != w.shape[1]:
        raise ValueError(
            f"{NAME}: h must have shape (..., n) and w (vocabulary, n), got {describe(h)} and {describe(w)}; "
            "a kernel of shape (n, vocabulary) is passed as w.T."
        )
    expect_weights(NAME, weights, "h", h)
    expect_classes(NAME)(jax.ShapeDtypeStruct((*h.shape[:-1], w.shape[0]), h.dtype), labels, weights)
    h, w, labels, *weights = map(jnp.asarray, (h, w, labels, *weights))
    return looked_at(h, *weights) if weights else h, w, labels, weights


def linear_cross_entropy_apply(params: Any, x: Array, *, key: Any = None) -> Array:
    """The (weighted) mean of -log softmax(h wᵀ)[label].  h: (..., n), w: (vocabulary, n), labels, weights: (...)."""
    h, w, labels, weights = _checked(params, x)
    acc = wide(h)  # also for the product, as its transpose gets a probability over n rows, too small for float16
    losses = softmax_cross_entropy_apply(h.astype(acc) @ w.astype(acc).T, labels, 0.0)
    return (weighted_mean_apply(losses, *weights) if weights else mean_apply(losses)).astype(h.dtype)


def shares(weights: Any, n: int, acc: Any) -> tuple[Array, Array]:
    """(share, most): the weight of each of n rows relative to the largest, and the largest weight in the mean.

    They are separate because float16 cannot hold the weight of one row in the mean of many, nor a probability times it.
    """
    if not weights:
        return jnp.ones((n,), acc), jnp.full((), 1 / max(n, 1), acc)
    w = weights[0].reshape(n).astype(acc)
    top, total = lax.stop_gradient(jnp.abs(w).max(initial=0.0)), w.sum()
    share = jnp.where(w == 0, jnp.zeros_like(w), w / jnp.where(top == 0, jnp.ones_like(top), top))
    return share, jnp.where(total == 0, jnp.zeros_like(top), top / jnp.where(total == 0, jnp.ones_like(total), total))


def gradient_of_rows(rows: Array, w: Array, labels: Array, share: Array) -> tuple[Array, Array, Array]:
    """(loss of each row, ct_h, ct_w) for the sum of share times the losses.  rows: (n, d), w: (v, d), labels, share: (n,)."""
    s = jnp.einsum("nd,vd->nv", rows, w, preferred_element_type=share.dtype)
    top = s.max(-1)
    e = jnp.exp(s - broadcast(top[:, None], s.shape))
    z = e.sum(-1)
    hit = broadcast(labels[:, None], s.shape) == broadcast(jnp.arange(w.shape[0], dtype=jnp.int32)[None], s.shape)
    losses = top - jnp.where(hit, s, jnp.zeros_like(s)).sum(-1) + jnp.log(z)
    # share (p - onehot) is the cotangent of s = h wᵀ: back to h through w, and to w through the rows of h.
    p = e * broadcast((share / z)[:, None], s.shape)
    ct_s = (p - jnp.where(hit, broadcast(share[:, None], s.shape), jnp.zeros_like(s))).astype(rows.dtype)
    ct_h = jnp.einsum("nv,vd->nd", ct_s, w, preferred_element_type=share.dtype)
    ct_w = jnp.einsum("nv,nd->vd", ct_s, rows, preferred_element_type=share.dtype)
    return losses, ct_h, ct_w


def fast_gradient_of_rows(
    rows: Array, w: Array, labels: Array, share: Array, kernel: bool = False
) -> tuple[Array, Array, Array]:
    """`gradient_of_rows`, spelled for the platform; kernel: on a GPU or TPU use its kernels, if there are any."""
    fast = {"cpu": cpu.gradient_of_rows, "cuda": partial(gpu.gradient_of_rows, plain=gradient_of_rows)}
    fast |= kernels.spellings(rows, w) if kernel else {}
    return by_platform(rows, w, labels, share, plain=gradient_of_rows, **fast)


def linear_cross_entropy_fwd(params: Any, x: Array, *, key: Any = None, of_rows: Any = gradient_of_rows) -> Any:
    h, w, labels, weights = _checked(params, x)
    n = math.prod(labels.shape)
    labels, valid = class_numbers(labels.reshape(n), w.shape[0])
    share, most = shares(weights, n, wide(h))
    if h.dtype != jnp.float16:  # only its range is too small for both at once; a factor of 1 saves a pass over ct_w
        share, most = share * most, jnp.ones_like(most)
    losses, ct_h, ct_w = of_rows(fold(h), w, labels, jnp.where(valid, share, jnp.zeros_like(share)))
    losses = jnp.where(valid, losses, jnp.full_like(losses, jnp.nan)).reshape(h.shape[:-1])
    value = weighted_mean_apply(losses, *weights) if weights else mean_apply(losses)
    mean_residuals = (losses, *weights, value) if weights else None
    return value.astype(h.dtype), (ct_h.reshape(h.shape), ct_w, most, mean_residuals, jnp.zeros((0,), h.dtype))


def linear_cross_entropy_bwd(residuals: Any, ct_value: Array) -> Any:
    ct_h, ct_w, most, mean_residuals, like = residuals  # a scalar is left, which is its own transpose
    scale = ct_value.astype(ct_w.dtype) * most
    ct_y = (ct_h * scale).astype(like.dtype), (ct_w * scale).astype(like.dtype)
    if mean_residuals is None:
        return (), (ct_y, None)
    return (), (ct_y, None, weighted_mean_bwd(mean_residuals, ct_value)[1])


def linear_cross_entropy(*, kernel: bool = False) -> Layer[Array]:
    """The mean over rows of the cross-entropy of softmax(h wᵀ) with integer labels, in chunks of rows.

    x = ((h, w), labels) or ((h, w), labels, weights); h: (..., n); w: (vocabulary, n), like the table of an embedding, so
    that a tied model can pass its table unchanged; labels: integers (...) in 0 ... vocabulary-1; weights: (...).
    A label out of range raises ValueError when its value is known; under `jit` its row has loss NaN and no gradient.
    kernel: on a GPU or TPU, use Pallas kernels, as in `nnjax.ops.linear_cross_entropy`.
    Raises TypeError or ValueError where h, w, labels and weights do not fit.
    """
    expect_flag(NAME, kernel=kernel)
    of_rows = partial(fast_gradient_of_rows, kernel=kernel)
    return leaf(
        NAME,
        lambda key: (),
        linear_cross_entropy_apply,
        linear_cross_entropy_fwd,
        linear_cross_entropy_bwd,
        lambda residuals: Like((), residuals[-1].dtype),
        fast=(partial(linear_cross_entropy_fwd, of_rows=of_rows), linear_cross_entropy_bwd),
    )
