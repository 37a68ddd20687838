"""A linear map to many classes and the cross-entropy of its outputs in one: the N x V outputs are never kept.

The gradient of a softmax's cross-entropy is known as soon as its outputs are, and the cotangent of a mean is one number.
So the forward makes the gradient of each chunk of rows while the chunk's outputs exist, and the backward multiplies by
that number.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from ..errors import describe, expect_float, expect_params, expect_same_dtype, expect_shape
from ..layer import Layer
from ..leaf import Like, leaf
from ..linear import broadcast, fold, pad, wide
from .means import (
    class_numbers,
    expect_classes,
    looked_at,
    mean_apply,
    softmax_cross_entropy_apply,
    weighted_mean_apply,
    weighted_mean_bwd,
)

NAME = "linear_cross_entropy"
CHUNK_BYTES = 2**24  # of outputs that exist at one time
FEW = 256  # classes at most for which the one-hot is formed: 0.91 of jax.grad's time for 65, where a scatter takes 1.17


def rows_at_a_time(n: int, vocab: int) -> int:
    """How many of n rows make a chunk: at most CHUNK_BYTES of float32 outputs but at least 64 rows, evenly shared."""
    most = max(64, CHUNK_BYTES // (4 * vocab))
    return -(-n // -(-n // most)) if n else 1


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
    if weights:
        expect_float(NAME, "weights", weights[0])
        expect_shape(NAME, "weights", weights[0], h.shape[:-1])
        expect_same_dtype(NAME, "weights", weights[0], "h", h)
    expect_classes(NAME)(jax.ShapeDtypeStruct((*h.shape[:-1], w.shape[0]), h.dtype), labels, weights)
    h, w, labels, *weights = map(jnp.asarray, (h, w, labels, *weights))
    return looked_at(h, *weights) if weights else h, w, labels, weights


def linear_cross_entropy_apply(params, x, *, key=None):
    """The (weighted) mean of -log softmax(h wᵀ)[label].  h: (..., n), w: (vocabulary, n), labels, weights: (...)."""
    h, w, labels, weights = _checked(params, x)
    acc = wide(h)  # also for the product, so that its transpose meets what float16 cannot hold: a probability over n rows
    losses = softmax_cross_entropy_apply(h.astype(acc) @ w.astype(acc).T, labels, 0.0)
    return (weighted_mean_apply(losses, *weights) if weights else mean_apply(losses)).astype(h.dtype)


def shares(weights, n: int, acc):
    """(share, most): what each of n rows counts for beside the one that counts most, and what that one does in the mean.

    Apart, as float16 cannot hold the part of one row in the mean of many, nor a probability times it.
    """
    if not weights:
        return jnp.ones((n,), acc), jnp.full((), 1 / max(n, 1), acc)
    w = weights[0].reshape(n).astype(acc)
    top, total = lax.stop_gradient(jnp.abs(w).max(initial=0.0)), w.sum()
    share = jnp.where(w == 0, jnp.zeros_like(w), w / jnp.where(top == 0, jnp.ones_like(top), top))
    return share, jnp.where(total == 0, jnp.zeros_like(top), top / jnp.where(total == 0, jnp.ones_like(total), total))


def linear_cross_entropy_fwd(params, x, *, key=None):
    h, w, labels, weights = _checked(params, x)
    acc = wide(h)
    n, vocab = math.prod(labels.shape), w.shape[0]
    rows, (labels, valid) = fold(h), class_numbers(labels.reshape(n), vocab)
    share, most = shares(weights, n, acc)
    share = jnp.where(valid, share, jnp.zeros_like(share))
    few = vocab <= FEW

    size = rows_at_a_time(n, vocab)
    missing = -n % size

    def chunks(t):
        t = pad(t, ((0, missing), *((0, 0),) * (t.ndim - 1)))
        return t.reshape(-1 if t.size else 0, size, *t.shape[1:])

    def step(ct_w, chunk):
        h, share, labels = chunk
        s = jnp.einsum("cn,vn->cv", h, w, preferred_element_type=acc)
        top = s.max(-1)
        e = jnp.exp(s - broadcast(top[:, None], s.shape))
        z = e.sum(-1)
        if few:  # ct_s = share (p - onehot), formed; its transposes, ct_s w and ct_sᵀ h, need nothing more
            hit = broadcast(labels[:, None], s.shape) == broadcast(jnp.arange(vocab, dtype=jnp.int32)[None], s.shape)
            p = e * broadcast((share / z)[:, None], s.shape)
            ct_s = (p - jnp.where(hit, broadcast(share[:, None], s.shape), jnp.zeros_like(s))).astype(h.dtype)
            ct_h = jnp.einsum("cv,vn->cn", ct_s, w, preferred_element_type=acc)
            ct_w = ct_w + jnp.einsum("cv,cn->vn", ct_s, h, preferred_element_type=acc)
            return ct_w, (top - jnp.where(hit, s, jnp.zeros_like(s)).sum(-1), jnp.log(z), ct_h)
        # ct_s = share (p - onehot), the one-hot's part below, p = e / z: dividing the thin factors by z spares a pass over the
        # c x v matrix.
        f = broadcast((share / z)[:, None], h.shape)
        e = e.astype(h.dtype)
        ct_h = f * jnp.einsum("cv,vn->cn", e, w, preferred_element_type=acc)
        fh = (f * h.astype(acc)).astype(h.dtype)
        ct_w = ct_w + jnp.einsum("cv,cn->vn", e, fh, preferred_element_type=acc)
        return ct_w, (top, jnp.log(z), ct_h)

    zeros = (w * 0).astype(acc)
    ct_w, (above, log_z, ct_h) = lax.scan(step, zeros, (chunks(rows), chunks(share), chunks(labels)))
    above, log_z, ct_h = above.reshape(-1)[:n], log_z.reshape(-1)[:n], ct_h.reshape(-1, h.shape[-1])[:n]
    if not few:  # the one-hot's part: onehot w picks rows of w, its transpose adds to them
        chosen = w.at[labels].get(mode="fill", fill_value=0, wrap_negative_indices=False).astype(acc)
        column = broadcast(share[:, None], rows.shape)
        ct_h = ct_h - column * chosen
        ct_w = ct_w.at[labels].add(-column * rows.astype(acc), mode="drop", wrap_negative_indices=False)
        above = above - (rows.astype(acc) * chosen).sum(-1)
    losses = jnp.where(valid, above + log_z, jnp.full_like(log_z, jnp.nan)).reshape(h.shape[:-1])
    value = weighted_mean_apply(losses, *weights) if weights else mean_apply(losses)
    mean_residuals = (losses, *weights, value) if weights else None
    return value.astype(h.dtype), (ct_h.reshape(h.shape), ct_w, most, mean_residuals, jnp.zeros((0,), h.dtype))


def linear_cross_entropy_bwd(residuals, ct_value):
    ct_h, ct_w, most, mean_residuals, like = residuals  # but for a scalar, whose transpose is itself
    scale = ct_value.astype(ct_w.dtype) * most
    ct_y = (ct_h * scale).astype(like.dtype), (ct_w * scale).astype(like.dtype)
    if mean_residuals is None:
        return (), (ct_y, None)
    return (), (ct_y, None, weighted_mean_bwd(mean_residuals, ct_value)[1])


def linear_cross_entropy() -> Layer:
    """The mean over rows of the cross-entropy of softmax(h wᵀ) with integer labels, in chunks of rows.

    x = ((h, w), labels) or ((h, w), labels, weights); h: (..., n); w: (vocabulary, n), as the table of an embedding, so that
    a tied model hands its table over as it is; labels: integers (...) in 0 ... vocabulary-1; weights: (...).
    A label out of range raises ValueError when its value is known; under `jit` its row has loss NaN and no gradient.
    Raises TypeError or ValueError where h, w, labels and weights do not fit.
    """
    return leaf(
        NAME,
        lambda key: (),
        linear_cross_entropy_apply,
        linear_cross_entropy_fwd,
        linear_cross_entropy_bwd,
        lambda residuals: Like((), residuals[-1].dtype),
    )
