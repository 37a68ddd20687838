"""Losses are layers with no parameters and x = (y, labels) or (y, labels, weights).

Each is a loss per example, with its own `apply`, `fwd` and `bwd`, followed by one (weighted) mean over the examples, which
are all axes of y but the last. `bwd` returns ((), (ct_y, ct_labels[, ct_weights])), with None for integer labels.
An empty batch, or one with only zero weights, has value NaN and zero gradients. An example of weight 0 is ignored,
whatever its values: it counts as zeros, and its gradient is zero. Losses in bfloat16 and float16 are computed in float32, as
sums and means in them would stall or overflow, and rounded once at the end.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from ..errors import describe, expect_float, expect_params, expect_same_dtype, expect_shape, real_number
from ..layer import Layer
from ..leaf import Like, leaf
from ..linear import broadcast, wide


def mean_apply(losses: Array) -> Array:
    """value = (1/n) sum_i losses_i.  losses: (...), value: ()."""
    return losses.mean()


def mean_fwd(losses: Array) -> Any:
    return mean_apply(losses), (losses,)


def mean_bwd(residuals: Any, ct_value: Array) -> Any:
    (losses,) = residuals
    share = ct_value.astype(losses.dtype) / max(losses.size, 1)
    return broadcast(share, losses.shape)  # the mean is a sum, so its transpose copies


def weighted_mean_apply(losses: Array, weights: Any) -> Array:
    """value = sum_i w_i l_i / sum_i w_i.  losses, weights: (...), value: ().  An entry with w_i = 0 is ignored.

    The value has the dtype of the losses; the weights may be narrower.
    """
    weights = weights.astype(losses.dtype)
    total = weights.sum()
    kept = jnp.where(weights == 0, jnp.zeros_like(losses), losses)
    mean = (weights * kept).sum() / jnp.where(total == 0, jnp.ones_like(total), total)
    return jnp.where(total == 0, jnp.full_like(mean, jnp.nan), mean)


def weighted_mean_fwd(losses: Array, weights: Any) -> Any:
    value = weighted_mean_apply(losses, weights)
    return value, (losses, weights, value)


def weighted_mean_bwd(residuals: Any, ct_value: Array) -> Any:
    losses, weights, value = residuals
    w = weights.astype(losses.dtype)
    total = w.sum()
    some = jnp.where(total == 0, jnp.ones_like(total), total)
    share = jnp.where(total == 0, jnp.zeros_like(total), ct_value.astype(losses.dtype) / some)
    kept = jnp.where(w == 0, jnp.zeros_like(losses), losses)
    value = jnp.where(total == 0, jnp.zeros_like(value), value)
    ct_losses = jnp.where(w == 0, jnp.zeros_like(losses), broadcast(share, losses.shape) * w)
    ct_weights = broadcast(share, losses.shape) * (kept - broadcast(value, losses.shape))
    return ct_losses, ct_weights.astype(weights.dtype)


def expect_weights(name: str, weights: list[Any], what: str, y: Any) -> None:
    """Raise unless there are no weights, or one for each example of y, with its dtype; what: the name of y."""
    for w in weights:
        expect_float(name, "weights", w)
        expect_shape(name, "weights", w, y.shape[:-1])
        expect_same_dtype(name, "weights", w, what, y)


def looked_at(x: Array, weights: Any) -> Array:
    """x with zeros where the weight is 0, as NaN times 0 would be NaN, also in a gradient.  x: (..., n), weights: (...)."""
    return jnp.where(broadcast((weights == 0)[..., None], x.shape), jnp.zeros_like(x), x)


def class_numbers(labels: Array, n: int) -> tuple[Array, Array]:
    """(ids, known): labels as int32, -1 if not in 0 ... n-1, and whether they are.

    n may be more than the dtype of the labels can hold (256 classes in uint8), and a label more than int32 can.
    """
    ids = labels.astype(jnp.int32)
    known = (ids >= 0) & (ids < n) & (ids.astype(labels.dtype) == labels)
    return jnp.where(known, ids, jnp.full_like(ids, -1)), known


def total_weight(x: Array) -> jax.Array:
    """The sum of weights in the mean of a loss, for x as the loss takes it: the number of examples if there are no weights.

    Combine the means of several batches as sum(total_weight * value) / sum(total_weight), not as a mean of means.
    It is float32 at least, whatever the dtype of the weights: float16 counts to 2,048, and bfloat16 to 256.
    """
    y, _, *weights = x
    y = jax.tree.leaves(y)[0]  # of a fused loss the rows that it multiplies by a matrix; of a pair with a sum, not the sum
    return weights[0].sum(dtype=wide(y)) if weights else jnp.asarray(np.prod(y.shape[:-1]), wide(y))


def _loss(
    name: str, check: Callable[..., Any], apply: Callable[..., Any], fwd: Callable[..., Any], bwd: Callable[..., Any]
) -> Layer[Array]:
    """The Layer made of a loss per example, given as three functions, and the mean."""

    def checked(params, x):
        expect_params(name, params, tuple)
        if not isinstance(x, tuple) or len(x) not in (2, 3):
            came = f"{len(x)} entries" if isinstance(x, tuple) else describe(x)
            raise TypeError(f"{name}: x must be the tuple (y, labels) or (y, labels, weights), got {came}; pass one of these.")
        y, labels, *weights = x
        expect_float(name, "y", y)
        if y.ndim < 1:
            raise ValueError(f"{name}: y must have a last axis of outputs, got a scalar; pass shape (..., n).")
        expect_weights(name, weights, "y", y)
        check(y, labels, weights)
        y, labels, *weights = map(jnp.asarray, (y, labels, *weights))
        if weights:
            y = looked_at(y, *weights)
            labels = looked_at(labels, *weights) if jnp.issubdtype(labels.dtype, jnp.floating) else labels
        return y, labels, weights

    def loss_apply(params, x, *, key=None):
        y, labels, weights = checked(params, x)
        losses = apply(y, labels)
        return (weighted_mean_apply(losses, *weights) if weights else mean_apply(losses)).astype(y.dtype)

    def loss_fwd(params, x, *, key=None):
        y, labels, weights = checked(params, x)
        losses, residuals = fwd(y, labels)
        value, mean_residuals = weighted_mean_fwd(losses, *weights) if weights else mean_fwd(losses)
        return value.astype(y.dtype), (residuals, mean_residuals)

    def loss_bwd(residuals, ct_value):
        residuals, mean_residuals = residuals
        if len(mean_residuals) == 1:
            return (), bwd(residuals, mean_bwd(mean_residuals, ct_value))
        ct_losses, ct_weights = weighted_mean_bwd(mean_residuals, ct_value)
        return (), (*bwd(residuals, ct_losses), ct_weights)

    def output(residuals):
        _, _ = residuals
        return Like(())

    return leaf(name, lambda key: (), loss_apply, loss_fwd, loss_bwd, output)


def _expect_targets(name: str) -> Callable[..., Any]:
    def check(y, labels, weights):
        expect_float(name, "labels", labels)
        expect_shape(name, "labels", labels, y.shape)
        expect_same_dtype(name, "labels", labels, "y", y)

    return check


def expect_classes(name: str) -> Callable[..., Any]:
    def check(y, labels, weights):
        if y.shape[-1] < 1:
            raise ValueError(f"{name}: y must have at least one class, got {describe(y)}; pass shape (..., n).")
        if not hasattr(labels, "dtype") or not jnp.issubdtype(labels.dtype, jnp.integer):
            raise TypeError(
                f"{name}: labels must be integer class numbers, got {describe(labels)}; "
                "convert them with labels.astype(jnp.int32), or one-hot rows with labels.argmax(-1)."
            )
        expect_shape(name, "labels", labels, y.shape[:-1])
        seen = (labels, *weights)
        if any(isinstance(v, Tracer) for v in seen):
            return  # values exist only at run time: an id out of range then gives NaN and no gradient
        labels = np.asarray(labels)[np.asarray(weights[0]) != 0] if weights else np.asarray(labels)
        wrong = labels[(labels < 0) | (labels >= y.shape[-1])]
        if wrong.size:
            raise ValueError(
                f"{name}: labels must lie in 0 ... {y.shape[-1] - 1}, as y has {y.shape[-1]} classes, got {wrong[0]}; "
                "correct it, or give that example weight 0."
            )

    return check


def mean_squared_error_apply(y: Array, labels: Array) -> Array:
    """l = (1/n) sum_j (y_j - t_j)^2.  y, t: (..., n), l: (...) in float32 at least."""
    return jnp.square(y.astype(wide(y)) - labels.astype(wide(y))).mean(-1)


def mean_squared_error_fwd(y: Array, labels: Array) -> Any:
    return mean_squared_error_apply(y, labels), (y - labels,)


def mean_squared_error_bwd(residuals: Any, ct_losses: Any) -> Any:
    (difference,) = residuals
    ct = broadcast(ct_losses[..., None] * (2 / max(difference.shape[-1], 1)), difference.shape)
    ct_y = (ct * difference.astype(ct.dtype)).astype(difference.dtype)
    return ct_y, -ct_y


def mean_squared_error() -> Layer[Array]:
    """The mean over examples and outputs of (y - t)^2.  y, labels t: (..., n); weights: (...).

    Raises TypeError and ValueError where y, labels and weights are not of one dtype and of these shapes.

    >>> loss = nnjax.mean_squared_error()
    >>> float(loss.apply((), (jnp.zeros((2, 3)), jnp.ones((2, 3)))))
    1.0
    """
    name = "mean_squared_error"
    return _loss(name, _expect_targets(name), mean_squared_error_apply, mean_squared_error_fwd, mean_squared_error_bwd)


def _sides(y, labels):
    """(-|y|, r), r the share of the target on the other side than the logit: 1 - t where y > 0, t elsewhere.

    An infinite logit with r = 0 counts as 0, to avoid 0 times infinity.
    """
    y, t = y.astype(wide(y)), labels.astype(wide(y))
    against = jnp.where(y > 0, 1 - t, t)
    minus_abs = jnp.where(y > 0, -y, y)
    return jnp.where(jnp.isinf(y) & (against == 0), jnp.zeros_like(y), minus_abs), against


def binary_cross_entropy_apply(y: Array, labels: Array) -> Array:
    """l = -(1/n) sum_j [t log s(y) + (1 - t) log(1 - s(y))], s the sigmoid.  y, t: (..., n), l: (...) in float32 at least.

    Written as |y| r + log1p(exp(-|y|)), r the share of the target on the other side than y, so that there is never a log(0)
    or an overflow.
    """
    minus_abs, against = _sides(y, labels)
    tail = jnp.exp(jnp.where(y > 0, -y, y).astype(wide(y)))
    return (jnp.log1p(tail) - minus_abs * against).mean(-1)


def binary_cross_entropy_fwd(y: Array, labels: Array) -> Any:
    return binary_cross_entropy_apply(y, labels), (y, labels)


def binary_cross_entropy_bwd(residuals: Any, ct_losses: Any) -> Any:
    y, labels = residuals  # dl/dy = s(y) - t, from the side where s(y) or 1 - s(y) is not rounded away
    minus_abs, against = _sides(y, labels)
    ct = broadcast(ct_losses[..., None] * (1 / max(y.shape[-1], 1)), y.shape)
    slope = against - jax.nn.sigmoid(jnp.where(y > 0, -y, y).astype(ct.dtype))
    ct_y = ct * jnp.where(y > 0, slope, -slope)
    return ct_y.astype(y.dtype), (ct * jnp.where(y > 0, minus_abs, -minus_abs)).astype(y.dtype)


def binary_cross_entropy() -> Layer[Array]:
    """The mean over examples and outputs of the cross-entropy of labels t in [0, 1] with sigmoid(y).

    y are logits.  y, labels t: (..., n); weights: (...).
    Raises TypeError and ValueError where y, labels and weights are not of one dtype and of these shapes.

    >>> loss = nnjax.binary_cross_entropy()
    >>> round(float(loss.apply((), (jnp.zeros((2, 3)), jnp.ones((2, 3))))), 4)
    0.6931
    """
    name = "binary_cross_entropy"
    return _loss(name, _expect_targets(name), binary_cross_entropy_apply, binary_cross_entropy_fwd, binary_cross_entropy_bwd)


def _from_top(y):
    """(y - top, top, z), top_i = max_j y_ij, z = sum_j exp(y_j - top), all in float32 at least: softmax(y) = exp(y - top) / z.

    y: (..., n), top, z: (..., 1).
    """
    y = y.astype(wide(y))
    top = jax.lax.stop_gradient(y.max(-1, keepdims=True))
    below = y - broadcast(top, y.shape)
    return below, top, jnp.exp(below).sum(-1, keepdims=True)


def softmax_cross_entropy_apply(y: Array, labels: Array, smoothing: Any) -> Array:
    """l = -sum_j q_j log softmax(y)_j,  q = (1 - a) onehot(label) + a / n.  y: (..., n), labels: int (...).

    l: (...) in float32 at least.
    """
    below, _, z = _from_top(y)
    ids, known = class_numbers(labels, y.shape[-1])
    picked = jnp.take_along_axis(below, jnp.where(known, ids, jnp.zeros_like(ids))[..., None], -1)[..., 0]
    if smoothing:  # 0 times log 0 would be NaN
        picked = (1 - smoothing) * picked + smoothing * below.mean(-1)
    return jnp.where(known, jnp.log(z[..., 0]) - picked, jnp.full_like(picked, jnp.nan))


def softmax_cross_entropy_fwd(y: Array, labels: Array, smoothing: Any) -> Any:
    _, top, z = _from_top(y)
    return softmax_cross_entropy_apply(y, labels, smoothing), (y, top, z, labels)


def softmax_cross_entropy_bwd(residuals: Any, ct_losses: Any, smoothing: Any) -> Any:
    y, top, z, labels = residuals
    n = y.shape[-1]
    ids, known = class_numbers(labels, n)
    ct = jnp.where(known, ct_losses, jnp.zeros_like(ct_losses))[..., None]
    p_ct = jnp.exp(y.astype(top.dtype) - broadcast(top, y.shape)) * broadcast(ct / z, y.shape)
    one_hot = broadcast(ids[..., None], y.shape) == broadcast(jnp.arange(n, dtype=jnp.int32), y.shape)
    on, off = (broadcast(ct * share, y.shape) for share in (1 - smoothing + smoothing / n, smoothing / n))
    return (p_ct - jnp.where(one_hot, on, off)).astype(y.dtype), None  # ct (p - q): the simplest gradient there is


def softmax_cross_entropy(*, label_smoothing: float = 0.0) -> Layer[Array]:
    """The mean over examples of the cross-entropy of softmax(y) with integer labels.

    y: (..., n) logits; labels: integers (...) in 0 ... n-1; weights: (...).  label_smoothing a mixes the one-hot target
    with the uniform one, q = (1 - a) onehot + a / n (Szegedy et al. 2016, section 7).
    A label out of range raises ValueError when its value is known; under `jit` its example has loss NaN and no gradient.
    A logit of -inf gives its class the probability 0: an example of that class, or with smoothing any example, has loss inf;
    the gradient is still softmax(y) - q. A row of only -inf has no softmax and gives NaN.

    >>> loss = nnjax.softmax_cross_entropy()
    >>> round(float(loss.apply((), (jnp.zeros((2, 4)), jnp.array([0, 3])))), 4)
    1.3863
    """
    name = "softmax_cross_entropy"
    smoothing = real_number(label_smoothing)
    if smoothing is None or not 0 <= smoothing < 1:
        raise ValueError(f"{name}: label_smoothing must satisfy 0 <= a < 1, got {label_smoothing!r}; 0.1 is usual.")
    return _loss(
        name,
        expect_classes(name),
        lambda y, labels: softmax_cross_entropy_apply(y, labels, smoothing),
        lambda y, labels: softmax_cross_entropy_fwd(y, labels, smoothing),
        lambda residuals, ct: softmax_cross_entropy_bwd(residuals, ct, smoothing),
    )
