"""Losses are layers with no parameters and x = (y, labels) or (y, labels, weights).

Each is a loss per example, written here as an `apply`, `fwd`, `bwd` of its own, followed by one (weighted) mean over the
examples: every axis but the last of y. `bwd` returns ((), (ct_y, ct_labels[, ct_weights])), with None for integer labels.
An empty batch, or one whose weights are all zero, has value NaN and zero gradients.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .errors import describe, expect_float, expect_params, expect_same_dtype, expect_shape, real_number
from .layer import Layer
from .linear import broadcast


def mean_apply(losses):
    """value = (1/n) sum_i losses_i.  losses: (...), value: ()."""
    return losses.mean()


def mean_fwd(losses):
    return mean_apply(losses), (losses,)


def mean_bwd(residuals, ct_value):
    (losses,) = residuals
    return broadcast(ct_value / losses.size, losses.shape)  # the mean summed, so its transpose copies


def weighted_mean_apply(losses, weights):
    """value = sum_i w_i l_i / sum_i w_i.  losses, weights: (...), value: ().  An entry with w_i = 0 is not looked at."""
    total = weights.sum()
    kept = jnp.where(weights == 0, jnp.zeros_like(losses), losses)
    mean = (weights * kept).sum() / jnp.where(total == 0, jnp.ones_like(total), total)
    return jnp.where(total == 0, jnp.full_like(mean, jnp.nan), mean)


def weighted_mean_fwd(losses, weights):
    value = weighted_mean_apply(losses, weights)
    return value, (losses, weights, value)


def weighted_mean_bwd(residuals, ct_value):
    losses, weights, value = residuals
    total = weights.sum()
    share = jnp.where(total == 0, jnp.zeros_like(total), ct_value / jnp.where(total == 0, jnp.ones_like(total), total))
    kept = jnp.where(weights == 0, jnp.zeros_like(losses), losses)
    value = jnp.where(total == 0, jnp.zeros_like(value), value)
    ct_losses = jnp.where(weights == 0, jnp.zeros_like(losses), broadcast(share, losses.shape) * weights)
    ct_weights = broadcast(share, losses.shape) * (kept - broadcast(value, losses.shape))
    return ct_losses, ct_weights


def total_weight(x) -> jax.Array:
    """The sum of weights behind a loss's mean, for x as the loss takes it: the number of examples if it has no weights.

    Means of several batches combine as sum(total_weight * value) / sum(total_weight); a mean of means does not.
    """
    y, _, *weights = x
    if isinstance(y, tuple):
        y = y[0]  # the rows that a fused loss multiplies by a matrix
    return weights[0].sum() if weights else jnp.asarray(np.prod(y.shape[:-1]), y.dtype)


def _loss(name: str, check: Callable, apply: Callable, fwd: Callable, bwd: Callable) -> Layer:
    """The Layer of a loss per example, given as three functions, followed by the mean."""

    def checked(params, x):
        expect_params(name, params, tuple)
        if not isinstance(x, tuple) or len(x) not in (2, 3):
            came = f"{len(x)} entries" if isinstance(x, tuple) else describe(x)
            raise TypeError(f"{name}: x must be the tuple (y, labels) or (y, labels, weights), got {came}; pass one of these.")
        y, labels, *weights = x
        expect_float(name, "y", y)
        if y.ndim < 1:
            raise ValueError(f"{name}: y must have a last axis of outputs, got a scalar; pass shape (..., n).")
        if weights:
            expect_float(name, "weights", weights[0])
            expect_shape(name, "weights", weights[0], y.shape[:-1])
            expect_same_dtype(name, "weights", weights[0], "y", y)
        check(y, labels, weights)
        return y, labels, weights

    def loss_apply(params, x, *, key=None):
        y, labels, weights = checked(params, x)
        losses = apply(y, labels)
        return weighted_mean_apply(losses, *weights) if weights else mean_apply(losses)

    def loss_fwd(params, x, *, key=None):
        y, labels, weights = checked(params, x)
        losses, residuals = fwd(y, labels)
        value, mean_residuals = weighted_mean_fwd(losses, *weights) if weights else mean_fwd(losses)
        return value, (residuals, mean_residuals)

    def loss_bwd(residuals, ct_value):
        residuals, mean_residuals = residuals
        if len(mean_residuals) == 1:
            return (), bwd(residuals, mean_bwd(mean_residuals, ct_value))
        ct_losses, ct_weights = weighted_mean_bwd(mean_residuals, ct_value)
        return (), (*bwd(residuals, ct_losses), ct_weights)

    return Layer(name, lambda key: (), loss_apply, loss_fwd, loss_bwd)


def _expect_targets(name: str) -> Callable:
    def check(y, labels, weights):
        expect_float(name, "labels", labels)
        expect_shape(name, "labels", labels, y.shape)
        expect_same_dtype(name, "labels", labels, "y", y)

    return check


def expect_classes(name: str) -> Callable:
    def check(y, labels, weights):
        if not hasattr(labels, "dtype") or not jnp.issubdtype(labels.dtype, jnp.integer):
            raise TypeError(
                f"{name}: labels must be integer class numbers, got {describe(labels)}; "
                "convert them with labels.astype(jnp.int32), or one-hot rows with labels.argmax(-1)."
            )
        expect_shape(name, "labels", labels, y.shape[:-1])
        seen = (labels, *weights)
        if any(isinstance(v, Tracer) for v in seen):
            return  # values exist only at run time: an id out of range gives NaN there, and no gradient
        labels = np.asarray(labels)[np.asarray(weights[0]) != 0] if weights else np.asarray(labels)
        wrong = labels[(labels < 0) | (labels >= y.shape[-1])]
        if wrong.size:
            raise ValueError(
                f"{name}: labels must lie in 0 ... {y.shape[-1] - 1}, as y has {y.shape[-1]} classes, got {wrong[0]}; "
                "correct it, or give that example weight 0."
            )

    return check


def mean_squared_error_apply(y, labels):
    """l = (1/n) sum_j (y_j - t_j)^2.  y, t: (..., n), l: (...)."""
    return jnp.square(y - labels).mean(-1)


def mean_squared_error_fwd(y, labels):
    return mean_squared_error_apply(y, labels), (y - labels,)


def mean_squared_error_bwd(residuals, ct_losses):
    (difference,) = residuals
    ct_y = broadcast(ct_losses[..., None] * (2 / difference.shape[-1]), difference.shape) * difference
    return ct_y, -ct_y


def mean_squared_error() -> Layer:
    """The mean over examples and outputs of (y - t)^2.  y, labels t: (..., n); weights: (...)."""
    name = "mean_squared_error"
    return _loss(name, _expect_targets(name), mean_squared_error_apply, mean_squared_error_fwd, mean_squared_error_bwd)


def binary_cross_entropy_apply(y, labels):
    """l = -(1/n) sum_j [t log s(y) + (1 - t) log(1 - s(y))], s the sigmoid.  y, t: (..., n), l: (...).

    Written max(y, 0) - t y + log1p(exp(-|y|)): neither log(0) nor an overflow is ever formed.
    """
    positive = y > 0
    minus_abs = jnp.where(positive, -y, y)
    return (jnp.where(positive, y, jnp.zeros_like(y)) - labels * y + jnp.log1p(jnp.exp(minus_abs))).mean(-1)


def binary_cross_entropy_fwd(y, labels):
    return binary_cross_entropy_apply(y, labels), (y, labels)


def binary_cross_entropy_bwd(residuals, ct_losses):
    y, labels = residuals  # dl/dy = s(y) - t, taken from the side where s(y) or 1 - s(y) has not been rounded away
    tail = jax.nn.sigmoid(jnp.where(y > 0, -y, y))
    slope = jnp.where(y > 0, (1 - labels) - tail, tail - labels)
    ct = broadcast(ct_losses[..., None] * (1 / y.shape[-1]), y.shape)
    return ct * slope, -ct * y


def binary_cross_entropy() -> Layer:
    """The mean over examples and outputs of the cross-entropy of labels t in [0, 1] with sigmoid(y).

    y are logits.  y, labels t: (..., n); weights: (...).
    """
    name = "binary_cross_entropy"
    return _loss(name, _expect_targets(name), binary_cross_entropy_apply, binary_cross_entropy_fwd, binary_cross_entropy_bwd)


def _log_softmax(y):
    shifted = y - broadcast(jax.lax.stop_gradient(y.max(-1, keepdims=True)), y.shape)
    return shifted - broadcast(jnp.log(jnp.exp(shifted).sum(-1, keepdims=True)), y.shape)


def softmax_cross_entropy_apply(y, labels, smoothing):
    """l = -sum_j q_j log softmax(y)_j,  q = (1 - a) onehot(label) + a / n.  y: (..., n), labels: int (...), l: (...)."""
    n = y.shape[-1]
    log_p = _log_softmax(y)
    valid = (labels >= 0) & (labels < n)
    picked = jnp.take_along_axis(log_p, jnp.where(valid, labels, jnp.zeros_like(labels))[..., None], -1)[..., 0]
    losses = -(1 - smoothing) * picked - smoothing * log_p.mean(-1)
    return jnp.where(valid, losses, jnp.full_like(losses, jnp.nan))


def softmax_cross_entropy_fwd(y, labels, smoothing):
    return softmax_cross_entropy_apply(y, labels, smoothing), (_log_softmax(y), labels)


def softmax_cross_entropy_bwd(residuals, ct_losses, smoothing):
    log_p, labels = residuals
    n = log_p.shape[-1]
    labels = labels.astype(jnp.int32)[..., None]
    one_hot = broadcast(labels, log_p.shape) == broadcast(jnp.arange(n, dtype=jnp.int32), log_p.shape)
    q = jnp.where(one_hot, 1 - smoothing + smoothing / n, smoothing / n).astype(log_p.dtype)
    ct = jnp.where((labels >= 0) & (labels < n), ct_losses[..., None], jnp.zeros_like(ct_losses[..., None]))
    return broadcast(ct, log_p.shape) * (jnp.exp(log_p) - q), None  # p - q: the simplest gradient there is


def softmax_cross_entropy(*, label_smoothing: float = 0.0) -> Layer:
    """The mean over examples of the cross-entropy of softmax(y) with integer labels.

    y: (..., n) logits; labels: integers (...) in 0 ... n-1; weights: (...).  label_smoothing a mixes the one-hot target
    with the uniform one, q = (1 - a) onehot + a / n (Szegedy et al. 2016, section 7).
    A label out of range raises ValueError when its value is known; under `jit` its example has loss NaN and no gradient.
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
