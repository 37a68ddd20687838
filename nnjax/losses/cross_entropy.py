"""The cross-entropy of a softmax with class numbers or probabilities, and what its fused form shares with it."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..errors import describe, expect_float, expect_not_negative, expect_same_dtype, expect_shape, real_number, whole_number
from ..layer import Layer
from ..linear import broadcast, wide
from .example import Rows, constants, known, loss


class Entropy(NamedTuple):
    """What is done to the scores and targets of a cross-entropy; softcap and ignore_index: None for none."""

    smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None
    ignore_index: int | None = -100


DEFAULT = Entropy()


def capped(y: Array, softcap: float | None) -> tuple[Array, Array | None]:
    """(s, ds/dy), s = c tanh(y / c), in float32 at least; -inf, a class that is not there, stays. Without c, y and None."""
    y = y.astype(wide(y))
    if softcap is None:
        return y, None
    t, gone = jnp.tanh(y / softcap), jnp.isneginf(y)
    s = jnp.where(gone, jnp.full_like(y, -jnp.inf), softcap * t)
    return s, jnp.where(gone, jnp.zeros_like(y), (1 - t) * (1 + t))


def from_top(y: Array) -> tuple[Array, Array, Array]:
    """(y - top, top, z), top_i = max_j y_ij, z = sum_j exp(y_j - top), all in float32 at least: softmax(y) = exp(y - top) / z.

    y: (..., n), top, z: (..., 1).
    """
    y = y.astype(wide(y))
    top = lax.stop_gradient(y.max(-1, keepdims=True))
    below = y - broadcast(top, y.shape)
    return below, top, jnp.exp(below).sum(-1, keepdims=True)


def class_numbers(labels: Array, n: int) -> tuple[Array, Array]:
    """(ids, known): labels as int32, -1 if not in 0 ... n-1, and whether they are.

    n may be more than the dtype of the labels can hold (256 classes in uint8), and a label more than int32 can.
    """
    ids = labels.astype(jnp.int32)
    known = (ids >= 0) & (ids < n) & (ids.astype(labels.dtype) == labels)
    return jnp.where(known, ids, jnp.full_like(ids, -1)), known


def ignored(labels: Array, ignore_index: int | None) -> Array | None:
    """Which labels are this number; None if none is, as they are probabilities or their dtype cannot hold it."""
    if ignore_index is None or not jnp.issubdtype(labels.dtype, jnp.integer):
        return None
    held = jnp.iinfo(labels.dtype)
    return labels == jnp.asarray(ignore_index, labels.dtype) if held.min <= ignore_index <= held.max else None


def _fixed(class_weights: Any) -> Array:
    """The weights as an array that has no cotangent."""
    return lax.stop_gradient(jnp.asarray(class_weights))


def weights_of_classes(labels: Array, class_weights: Any, dtype: Any) -> Array:
    """The weight of the class of each label; that of an unknown class is 1."""
    m = _fixed(class_weights).astype(dtype)
    ids, _ = class_numbers(labels, m.shape[0])
    return m.at[ids].get(mode="fill", fill_value=1, wrap_negative_indices=False)


def example_counts(labels: Array, class_weights: Any, dtype: Any, *, ignore_index: int | None) -> Array | None:
    """What an example counts in the mean: the weight of its class, 0 if it is ignored; None for 1."""
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        return None
    left_out = ignored(labels, ignore_index)
    if class_weights is None:
        return None if left_out is None else (~left_out).astype(dtype)
    counts = weights_of_classes(labels, class_weights, dtype)
    return counts if left_out is None else jnp.where(left_out, jnp.zeros_like(counts), counts)


def times(m: Array | None, x: Array) -> Array:
    """m x, 0 where m is 0, whatever x; m: None for 1."""
    return x if m is None else jnp.where(m == 0, jnp.zeros_like(x), m * x)


def _targets(labels, class_weights, below, how):
    """(m q, m, where q = 0 on a score of -inf), each (..., n): q smoothed probabilities, m the weights of the classes.

    There q is a constant, as the class is not.
    """
    n, acc = below.shape[-1], below.dtype
    q = (1 - how.smoothing) * labels.astype(acc) + how.smoothing / n if how.smoothing else labels.astype(acc)
    m = None if class_weights is None else broadcast(_fixed(class_weights).astype(acc), below.shape)
    nothing = jnp.isneginf(below) & (q == 0)
    q = jnp.where(nothing, jnp.zeros_like(q), q)
    return (q if m is None else m * q), m, nothing


def softmax_cross_entropy_apply(y: Array, labels: Array, class_weights: Any = None, *, how: Entropy = DEFAULT) -> Array:
    """l = -sum_j m_j q_j log softmax(s)_j + c z_loss (log sum_j exp s_j)^2,  s = softcap tanh(y / softcap).

    y: (..., n); labels: q (..., n), with c = 1, or integers (...), whose q = onehot and c = m_label; then a smoothing a makes
    q (1 - a) q + a / n.  class_weights m: (n,), 1 by default; l: (...) in float32 at least.
    """
    below, top, z = from_top(capped(y, how.softcap)[0])
    log_z, a = jnp.log(z), how.smoothing
    if jnp.issubdtype(labels.dtype, jnp.floating):
        q, _, nothing = _targets(labels, class_weights, below, how)
        losses = (q * jnp.where(nothing, jnp.zeros_like(below), broadcast(log_z, below.shape) - below)).sum(-1)
        return losses + how.z_loss * jnp.square(log_z + top)[..., 0] if how.z_loss else losses
    ids, known = class_numbers(labels, y.shape[-1])
    picked = jnp.take_along_axis(below, jnp.where(known, ids, jnp.zeros_like(ids))[..., None], -1)
    c = None if class_weights is None else weights_of_classes(labels, class_weights, below.dtype)
    losses = times(c, (log_z - picked)[..., 0])
    if a:  # 0 times log 0 would be NaN
        m = None if class_weights is None else broadcast(_fixed(class_weights).astype(below.dtype), below.shape)
        losses = (1 - a) * losses + a * times(m, broadcast(log_z, below.shape) - below).mean(-1)
    if how.z_loss:
        losses = losses + how.z_loss * times(c, jnp.square(log_z + top)[..., 0])
    return jnp.where(known, losses, jnp.full_like(losses, jnp.nan))


def softmax_cross_entropy_fwd(y: Array, labels: Array, class_weights: Any = None, *, how: Entropy = DEFAULT) -> Any:
    _, top, z = from_top(capped(y, how.softcap)[0])
    return softmax_cross_entropy_apply(y, labels, class_weights, how=how), (y, top, z, labels, class_weights)


def softmax_cross_entropy_bwd(residuals: Any, ct_losses: Any, *, how: Entropy = DEFAULT) -> Any:
    y, top, z, labels, class_weights = residuals
    s, slope = capped(y, how.softcap)
    below = s - broadcast(top, s.shape)
    q, q_sum, c, ct, ct_labels = _sent_to_targets(below, z, labels, class_weights, ct_losses, how)
    p_ct = q_sum * ct  # of the logarithm of z, whose gradient is p = softmax(s)
    if how.z_loss:
        p_ct = p_ct + 2 * how.z_loss * c * (jnp.log(z) + top) * ct
    ct_s = jnp.exp(below) * broadcast(p_ct / z, s.shape) - q  # ct (p - q): the simplest gradient there is
    return (ct_s if slope is None else ct_s * slope).astype(y.dtype), ct_labels


def _sent_to_targets(below, z, labels, class_weights, ct_losses, how):
    """(ct m q, sum_j m_j q_j, c, ct, ct_labels): how much each score is pulled up, and the cotangent of probabilities.

    below, m q: (..., n), the others (..., 1); the sum and c are 1 without class weights.
    """
    n, shape, a, one = below.shape[-1], below.shape, how.smoothing, jnp.ones_like(z)
    if jnp.issubdtype(labels.dtype, jnp.floating):
        q, m, nothing = _targets(labels, class_weights, below, how)
        ct = ct_losses[..., None]
        apart = jnp.where(nothing, jnp.zeros_like(below), broadcast(jnp.log(z), shape) - below)
        ct_labels = broadcast((1 - a) * ct, shape) * (apart if m is None else m * apart)
        return broadcast(ct, shape) * q, q.sum(-1, keepdims=True), one, ct, ct_labels.astype(labels.dtype)
    ids, known = class_numbers(labels, n)
    ct = jnp.where(known, ct_losses, jnp.zeros_like(ct_losses))[..., None]
    one_hot = broadcast(ids[..., None], shape) == broadcast(jnp.arange(n, dtype=jnp.int32), shape)
    if class_weights is None:
        on, off = (broadcast(ct * share, shape) for share in (1 - a + a / n, a / n))
        return jnp.where(one_hot, on, off), one, one, ct, None
    m = _fixed(class_weights).astype(below.dtype)
    c = weights_of_classes(labels, class_weights, below.dtype)[..., None]
    off = broadcast(ct, shape) * broadcast(a / n * m, shape)
    pulled = jnp.where(one_hot, off + broadcast((1 - a) * c * ct, shape), off)
    return pulled, (1 - a) * c + a * m.mean(), c, ct, None


def expect_labels(name: str, ignore_index: int | None) -> Any:
    """The check of class numbers or probabilities, and of class weights."""

    def check(y, labels, weights, class_weights):
        if y.shape[-1] < 1:
            raise ValueError(f"{name}: y must have at least one class, got {describe(y)}; pass shape (..., n).")
        if class_weights is not None:
            expect_shape(name, "class_weights", class_weights, y.shape[-1:])
        if getattr(labels, "ndim", -1) == y.ndim and jnp.issubdtype(labels.dtype, jnp.floating):
            expect_float(name, "labels", labels)
            expect_shape(name, "labels", labels, y.shape)
            expect_same_dtype(name, "labels", labels, "y", np.empty(0, y.dtype))  # of outputs that are never formed
            return
        if not hasattr(labels, "dtype") or not jnp.issubdtype(labels.dtype, jnp.integer):
            raise TypeError(
                f"{name}: labels must be integer class numbers, got {describe(labels)}; convert them with "
                f"labels.astype(jnp.int32), or pass probabilities of shape {tuple(y.shape)}."
            )
        expect_shape(name, "labels", labels, y.shape[:-1])
        if not known(labels, *weights):
            return  # an id out of range then gives NaN and no gradient
        numbers = np.asarray(labels)
        numbers = numbers[np.asarray(weights[0]) != 0] if weights else numbers
        wrong = numbers[(numbers < 0) | (numbers >= y.shape[-1])]
        wrong = wrong if ignore_index is None else wrong[wrong != ignore_index]
        if wrong.size:
            raise ValueError(
                f"{name}: labels must lie in 0 ... {y.shape[-1] - 1}, as y has {y.shape[-1]} classes, got {wrong[0]}; "
                "correct it, give that example weight 0, or pass it as ignore_index."
            )

    return check


def entropy(name: str, label_smoothing: Any, z_loss: Any, softcap: Any, ignore_index: Any) -> Entropy:
    """These as `Entropy`. Raises ValueError for what is none."""
    smoothing, cap = real_number(label_smoothing), None if softcap is None else real_number(softcap)
    if smoothing is None or not 0 <= smoothing < 1:
        raise ValueError(f"{name}: label_smoothing must satisfy 0 <= a < 1, got {label_smoothing!r}; 0.1 is usual.")
    if softcap is not None and (cap is None or not 0 < cap < math.inf):
        raise ValueError(f"{name}: softcap must be a number above 0, the bound of the scores, got {softcap!r}; None has none.")
    (z_loss,) = expect_not_negative(name, z_loss=z_loss)
    index = None if ignore_index is None else whole_number(ignore_index)
    if ignore_index is not None and index is None:
        raise ValueError(f"{name}: ignore_index must be an int, the label of what is ignored, got {ignore_index!r}; or None.")
    return Entropy(smoothing, z_loss, cap, index)


def entropy_rows(name: str, how: Entropy) -> Rows:
    """The cross-entropy of each example."""
    return Rows(
        partial(softmax_cross_entropy_apply, how=how),
        partial(softmax_cross_entropy_fwd, how=how),
        partial(softmax_cross_entropy_bwd, how=how),
        expect_labels(name, how.ignore_index),
        partial(ignored, ignore_index=how.ignore_index),
        partial(example_counts, ignore_index=how.ignore_index),
    )


def softmax_cross_entropy(
    *, label_smoothing: float = 0.0, class_weights: Any = None, ignore_index: int | None = -100, z_loss: float = 0.0,
    softcap: float | None = None, reduction: str = "mean",
) -> Layer[Array]:  # fmt: skip
    """The mean over examples of the cross-entropy of softmax(y) with class numbers or probabilities.

    y: (..., n) logits; labels: integers (...) in 0 ... n-1, or probabilities (..., n), which have a cotangent too;
    weights: (...).
    label_smoothing a mixes the target with the uniform one, q = (1 - a) q + a / n (Szegedy et al. 2016, section 7).
    class_weights m: (n,), of any sign, constants: the loss is -sum_j m_j q_j log softmax(y)_j, and an integer label counts in
    the mean as its class weighs.
    ignore_index: the integer label of examples that are ignored, whatever their logits; None for none.
    z_loss: adds so much times the square of log sum_j exp(y_j), times the weight of the class. softcap c: c tanh(y / c) in
    place of y. reduction: "mean" over examples (divided by their total weight), "sum" or "none".
    The transpose: ct_y = ct (softmax(y) - q), and for probabilities ct_q = -ct log softmax(y).
    Another label out of range raises ValueError when its value is known; under `jit` its example has loss NaN and no gradient.
    A logit of -inf gives its class the probability 0, with a softcap too: an example of that class, or with smoothing any
    example, has loss inf; the gradient is still softmax(y) - q, and 0 where q is 0. A row of only -inf has no softmax and
    gives NaN.

    >>> loss = nnjax.softmax_cross_entropy()
    >>> round(float(loss.apply((), (jnp.zeros((2, 4)), jnp.array([0, 3])))), 4)
    1.3863
    """
    name = "softmax_cross_entropy"
    how = entropy(name, label_smoothing, z_loss, softcap, ignore_index)
    shared = None if class_weights is None else constants(name, "class_weights", class_weights)
    return loss(name, entropy_rows(name, how), reduction, shared)
