"""A large table, and the loss over as many classes, split by rows: every device of an axis has some of the vocabulary."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ..errors import expect_positive
from ..layer import Layer
from ..layers.embedding import EmbeddingParams, embedding
from ..linear import broadcast, fold, scatter_add, wide
from ..losses.cross_entropy import Entropy, class_numbers, entropy_rows, example_counts
from ..losses.example import only, seen_of, unseen_apply
from ..losses.reduction import reduced_apply, reduced_bwd, reduced_fwd, shares, weight_in
from .collectives import copy_to, copy_to_t, reduce_from, reduce_from_t
from .sharded import Sharded, expect_divides, like_parameters


def _own(ids, rows: int, axis: str):
    """(ids counted from this device's first row, negative for an id that no device has; whether any device has it)."""
    ids, known = class_numbers(ids, rows * lax.axis_size(axis))
    return copy_to(ids, axis) - lax.axis_index(axis).astype(jnp.int32) * rows, known


def vocabulary_embedding_apply(params: Any, x: Array, *, key: Any = None, axis: str) -> Array:
    """y = table[x]: every device looks up the ids that it has, the others add zeros.  An unknown id gives NaN."""
    own, known = _own(x, params.table.shape[0], axis)
    y = params.table.at[own].get(mode="fill", fill_value=0, wrap_negative_indices=False)
    y = reduce_from(y, axis)
    return jnp.where(broadcast(known[..., None], y.shape), y, jnp.full_like(y, jnp.nan))


def vocabulary_embedding_fwd(params: Any, x: Array, *, key: Any = None, axis: str) -> Any:
    y = vocabulary_embedding_apply(params, x, axis=axis)
    return y, (x, jnp.zeros_like(params.table, shape=(params.table.shape[0], 0)))


def vocabulary_embedding_bwd(residuals: Any, ct_y: Array, *, axis: str) -> Any:
    x, like = residuals  # the table's rows on this device, without their columns
    ids, _ = _own(x, like.shape[0], axis)  # y sums selected rows over devices: ct_y goes to each device, to its own ids
    return EmbeddingParams(scatter_add(reduce_from_t(ct_y, axis), ids, like.shape[0])), None


def vocabulary_embedding(vocab: int, n: int, mesh: Mesh, axis: str = "model", *, init: Any = None) -> Sharded:
    """`nnjax.embedding` split by rows: one all-reduce forward, nothing backward.

    Raises ValueError if vocab is not a multiple of the axis: pad it with unused rows.

    >>> mesh = nnjax.distributed.make_mesh(model=1)
    >>> tuple(nnjax.distributed.vocabulary_embedding(10, 4, mesh).specs.table)
    ('model', None)
    """
    vocab, n = expect_positive("vocabulary_embedding", vocab=vocab, n=n)
    expect_divides("vocabulary_embedding", "vocab", vocab, mesh, axis)
    layer = Layer(
        f"vocabulary_embedding({vocab}, {n})",
        embedding(vocab, n, init=init).init,
        lambda params, x, *, key=None: vocabulary_embedding_apply(params, x, axis=axis),
        lambda params, x, *, key=None: vocabulary_embedding_fwd(params, x, axis=axis),
        lambda residuals, ct_y: vocabulary_embedding_bwd(residuals, ct_y, axis=axis),
    )
    return Sharded(layer, like_parameters(layer, [P(axis, None)]))


def _scores(h, w, labels, axis):
    """(h, w-shard, labels) -> rows of h, exponentials of the device's scores minus top, where the labels hit, the sum of the
    exponentials over all devices, whether any device has the label, and the losses, in float32 at least."""
    rows, acc = copy_to(fold(h), axis), wide(h)
    s = jnp.einsum("cn,vn->cv", rows, w, preferred_element_type=acc)
    top = lax.pmax(lax.stop_gradient(s.max(-1)), axis)  # the value does not depend on top
    e = jnp.exp(s - broadcast(top[:, None], s.shape))
    ids, known = _own(labels.reshape(-1), w.shape[0], axis)
    hit = broadcast(ids[:, None], s.shape) == broadcast(jnp.arange(w.shape[0], dtype=jnp.int32)[None], s.shape)
    z, chosen = reduce_from((e.sum(-1), jnp.where(hit, s, jnp.zeros_like(s)).sum(-1)), axis)
    losses = jnp.where(known, jnp.log(z) + (top - chosen), jnp.full_like(z, jnp.nan))
    return rows, e, hit, z, known, losses.reshape(labels.shape)


def _entered(x: Any, ignore_index: int | None) -> Any:
    """(h with zeros where it is not seen, w, labels, weights, seen, what each example counts), the last three None for all."""
    (h, w), labels, *weights = x
    rows = entropy_rows("vocabulary_cross_entropy", Entropy(ignore_index=ignore_index))
    seen = seen_of(rows, labels, weights)
    return only(h, seen), w, labels, weights[0] if weights else None, seen, rows.counts(labels, None, wide(h))


def vocabulary_cross_entropy_apply(
    params: Any, x: Array, *, key: Any = None, axis: str, ignore_index: int | None = -100
) -> Array:
    """The (weighted) mean of -log softmax(h wᵀ)[label], w by its rows.  h: (..., n), w: (vocabulary / devices, n)."""
    h, w, labels, weights, seen, counts = _entered(x, ignore_index)
    losses = unseen_apply(_scores(h, w, labels, axis)[-1], seen)
    return reduced_apply(losses, weights, counts, "mean").astype(h.dtype)


def vocabulary_cross_entropy_fwd(params: Any, x: Array, *, key: Any = None, axis: str, ignore_index: int | None = -100) -> Any:
    h, w, labels, weights, seen, counts = _entered(x, ignore_index)
    rows, e, hit, z, known, losses = _scores(h, w, labels, axis)
    known = known if seen is None else known & seen.reshape(known.shape)
    value, reduced = reduced_fwd(unseen_apply(losses, seen), weights, counts, "mean")
    like = jnp.zeros_like(h, shape=(0, *h.shape))
    return value.astype(h.dtype), (w, rows, e, hit, z, known, reduced, like)


def vocabulary_cross_entropy_bwd(residuals: Any, ct_value: Array, *, axis: str) -> Any:
    w, rows, e, hit, z, known, reduced, like = residuals
    losses, weights, counts, _ = reduced
    total = weight_in(None, weights, lambda *_: counts, losses.shape, e.dtype)
    share, most = shares(weights, total, known.size, e.dtype)
    share = jnp.where(known, share, jnp.zeros_like(share))  # an unknown label has no gradient
    share, scale = reduce_from_t((share, ct_value.astype(e.dtype) * most), axis)
    p = e * broadcast((share / z)[:, None], e.shape)
    ct_s = (p - jnp.where(hit, broadcast(share[:, None], e.shape), jnp.zeros_like(e))).astype(like.dtype)
    ct_w = scale * jnp.matmul(ct_s.T, rows, preferred_element_type=e.dtype)
    ct_h = (scale * jnp.matmul(ct_s, w, preferred_element_type=e.dtype)).astype(like.dtype)
    ct_h = copy_to_t(ct_h, axis).reshape(like.shape[1:])  # every device has a copy of h: sum what each sends back
    ct_x = (ct_h, ct_w.astype(like.dtype)), None
    return (), ct_x if weights is None else (*ct_x, reduced_bwd(reduced, ct_value, "mean")[1])


def vocabulary_cross_entropy(axis: str = "model", *, ignore_index: int | None = -100) -> Layer[Array]:
    """`nnjax.linear_cross_entropy` with the rows of w on the devices of the axis; x and ignore_index as there.

    Forward one all-reduce for the largest score and one for two sums, a number or two for each row; backward one of ct_h.

    >>> nnjax.distributed.vocabulary_cross_entropy("model").name
    'vocabulary_cross_entropy'
    """
    how = {"axis": axis, "ignore_index": ignore_index}
    return Layer(
        "vocabulary_cross_entropy",
        lambda key: (),
        lambda params, x, *, key=None: vocabulary_cross_entropy_apply(params, x, **how),
        lambda params, x, *, key=None: vocabulary_cross_entropy_fwd(params, x, **how),
        lambda residuals, ct: vocabulary_cross_entropy_bwd(residuals, ct, axis=axis),
        counts=lambda labels, dtype: example_counts(labels, None, dtype, ignore_index=ignore_index),
    )
