"""A table of many rows, and the loss over as many classes, cut by rows: every device of an axis has some of the vocabulary."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ..layer import Layer
from ..layers.embedding import EmbeddingParams, embedding
from ..linear import broadcast, fold, scatter_add
from ..losses import mean_apply, mean_bwd, weighted_mean_apply, weighted_mean_bwd
from .collectives import copy_to, copy_to_t, reduce_from, reduce_from_t
from .sharded import Sharded, expect_divides, like_parameters


def _own(ids, rows: int, axis: str):
    """ids counted from this device's first row."""
    return copy_to(ids, axis).astype(jnp.int32) - lax.axis_index(axis).astype(jnp.int32) * rows


def vocabulary_embedding_apply(params, x, *, key=None, axis, vocab):
    """y = table[x]: every device looks up the ids that it has, the others add zeros.  An id that nobody has gives NaN."""
    rows = params.table.shape[0]
    y = params.table.at[_own(x, rows, axis)].get(mode="fill", fill_value=0, wrap_negative_indices=False)
    y = reduce_from(y, axis)
    known = broadcast(((x >= 0) & (x < vocab))[..., None], y.shape)
    return jnp.where(known, y, jnp.full_like(y, jnp.nan))


def vocabulary_embedding_fwd(params, x, *, key=None, axis, vocab):
    y = vocabulary_embedding_apply(params, x, axis=axis, vocab=vocab)
    return y, (x, jnp.zeros_like(params.table, shape=(params.table.shape[0], 0)))


def vocabulary_embedding_bwd(residuals, ct_y, *, axis):
    x, like = residuals  # the table's rows on this device, without their columns
    ids = _own(x, like.shape[0], axis)  # y was a sum over devices, of rows picked: ct_y goes to each, and to its own ids
    return EmbeddingParams(scatter_add(reduce_from_t(ct_y, axis), ids, like.shape[0])), None


def vocabulary_embedding(vocab: int, n: int, mesh: Mesh, axis: str = "model", *, init=None) -> Sharded:
    """`nnjax.embedding` by its rows: one all-reduce forward, nothing backward.

    Raises ValueError where vocab is no multiple of the axis: make it one with rows that no id names.
    """
    expect_divides("vocabulary_embedding", "vocab", vocab, mesh, axis)
    layer = Layer(
        f"vocabulary_embedding({vocab}, {n})",
        embedding(vocab, n, init=init).init,
        lambda params, x, *, key=None: vocabulary_embedding_apply(params, x, axis=axis, vocab=vocab),
        lambda params, x, *, key=None: vocabulary_embedding_fwd(params, x, axis=axis, vocab=vocab),
        lambda residuals, ct_y: vocabulary_embedding_bwd(residuals, ct_y, axis=axis),
    )
    return Sharded(layer, like_parameters(layer, [P(axis, None)]))


def _scores(h, w, labels, axis):
    """(h, w-shard, labels) -> the device's scores, their exponentials over e^top, what they come to over all devices."""
    rows, acc = copy_to(fold(h), axis), np.promote_types(h.dtype, np.float32)
    s = jnp.einsum("cn,vn->cv", rows, w, preferred_element_type=acc)
    top = lax.pmax(lax.stop_gradient(s.max(-1)), axis)  # any number would do here: the value does not depend on it
    e = jnp.exp(s - broadcast(top[:, None], s.shape))
    ids = _own(labels.reshape(-1), w.shape[0], axis)
    hit = broadcast(ids[:, None], s.shape) == broadcast(jnp.arange(w.shape[0], dtype=jnp.int32)[None], s.shape)
    z, chosen = reduce_from((e.sum(-1), jnp.where(hit, s, jnp.zeros_like(s)).sum(-1)), axis)
    known = ((labels >= 0) & (labels < w.shape[0] * lax.axis_size(axis))).reshape(-1)
    losses = jnp.where(known, top + jnp.log(z) - chosen, jnp.full_like(z, jnp.nan))
    return rows, e, hit, z, losses.reshape(labels.shape).astype(h.dtype)


def vocabulary_cross_entropy_apply(params, x, *, key=None, axis):
    """The (weighted) mean of -log softmax(h wᵀ)[label], w by its rows.  h: (..., n), w: (vocabulary / devices, n)."""
    (h, w), labels, *weights = x
    losses = _scores(h, w, labels, axis)[-1]
    return weighted_mean_apply(losses, *weights) if weights else mean_apply(losses)


def vocabulary_cross_entropy_fwd(params, x, *, key=None, axis):
    (h, w), labels, *weights = x
    rows, e, hit, z, losses = _scores(h, w, labels, axis)
    value = weighted_mean_apply(losses, *weights) if weights else mean_apply(losses)
    return value, (w, rows, e, hit, z, losses, weights, value, jnp.zeros_like(h, shape=(0, *h.shape)))


def vocabulary_cross_entropy_bwd(residuals, ct_value, *, axis):
    w, rows, e, hit, z, losses, weights, value, like = residuals
    if weights:
        share, ct_weights = weighted_mean_bwd((losses, *weights, value), ct_value)
    else:
        share, ct_weights = mean_bwd((losses,), ct_value), None
    share = jnp.where(jnp.isnan(losses), jnp.zeros_like(share), share)  # a label that nobody has teaches nothing
    share = reduce_from_t(share.reshape(-1).astype(e.dtype), axis)
    p = e * broadcast((share / z)[:, None], e.shape)
    ct_s = (p - jnp.where(hit, broadcast(share[:, None], e.shape), jnp.zeros_like(e))).astype(like.dtype)
    ct_w = ct_s.T @ rows
    ct_h = copy_to_t(ct_s @ w, axis).reshape(like.shape[1:])  # every device had a copy of h: sum what each sends back
    return (), ((ct_h, ct_w), None, ct_weights) if weights else ((ct_h, ct_w), None)


def vocabulary_cross_entropy(axis: str = "model") -> Layer:
    """`nnjax.linear_cross_entropy` with the rows of w on the devices of the axis; x as there.

    Forward one all-reduce for the largest score and one for two sums, each of a number or two a row; backward one of ct_h.
    """
    return Layer(
        "vocabulary_cross_entropy",
        lambda key: (),
        lambda params, x, *, key=None: vocabulary_cross_entropy_apply(params, x, axis=axis),
        lambda params, x, *, key=None: vocabulary_cross_entropy_fwd(params, x, axis=axis),
        lambda residuals, ct: vocabulary_cross_entropy_bwd(residuals, ct, axis=axis),
    )
