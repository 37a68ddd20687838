"""Losses for targets that are numbers: the squared error, and those that grow linearly for errors beyond a bound."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array

from ..errors import expect_float, expect_same_dtype, expect_shape, real_number
from ..layer import Layer
from ..linear import broadcast, wide
from .example import Rows, loss


def expect_targets(name: str) -> Callable[..., Any]:
    """The check that labels have the shape and dtype of y."""

    def check(y, labels, weights, shared):
        expect_float(name, "labels", labels)
        expect_shape(name, "labels", labels, y.shape)
        expect_same_dtype(name, "labels", labels, "y", y)

    return check


def mean_squared_error_apply(y: Array, labels: Array, shared: None = None) -> Array:
    """l = (1/n) sum_j (y_j - t_j)^2.  y, t: (..., n), l: (...) in float32 at least."""
    return jnp.square(y.astype(wide(y)) - labels.astype(wide(y))).mean(-1)


def mean_squared_error_fwd(y: Array, labels: Array, shared: None = None) -> Any:
    return mean_squared_error_apply(y, labels), (y - labels,)


def mean_squared_error_bwd(residuals: Any, ct_losses: Any) -> Any:
    (difference,) = residuals
    ct = broadcast(ct_losses[..., None] * (2 / max(difference.shape[-1], 1)), difference.shape)
    ct_y = (ct * difference.astype(ct.dtype)).astype(difference.dtype)
    return ct_y, -ct_y


def mean_squared_error(*, reduction: str = "mean") -> Layer[Array]:
    """The mean over examples and outputs of (y - t)^2.  y, labels t: (..., n); weights: (...).

    reduction: "mean" over examples; their "sum"; "none" gives the loss of each, (...).
    The transpose: ct_y = 2 ct (y - t) / n, and ct_t its negative.
    Raises TypeError and ValueError where y, labels and weights are not of one dtype and of these shapes.

    >>> loss = nnjax.mean_squared_error()
    >>> float(loss.apply((), (jnp.zeros((2, 3)), jnp.ones((2, 3)))))
    1.0
    """
    name = "mean_squared_error"
    pair = mean_squared_error_apply, mean_squared_error_fwd, mean_squared_error_bwd
    return loss(name, Rows(*pair, expect_targets(name)), reduction)


def huber_loss_apply(y: Array, labels: Array, shared: None = None, *, delta: float, scale: float = 1.0) -> Array:
    """l = (scale/n) sum_j [q_j^2 / 2 + delta (|d_j| - q_j)],  d = y - t, q = min(|d|, delta): a parabola, then a line.

    y, t: (..., n), l: (...) in float32 at least.
    """
    d = jnp.abs(y.astype(wide(y)) - labels.astype(wide(y)))
    q = jnp.minimum(d, jnp.full_like(d, delta))
    return scale * (0.5 * jnp.square(q) + delta * (d - q)).mean(-1)


def huber_loss_fwd(y: Array, labels: Array, shared: None = None, *, delta: float, scale: float = 1.0) -> Any:
    d = y.astype(wide(y)) - labels.astype(wide(y))
    return huber_loss_apply(y, labels, delta=delta, scale=scale), (d, jnp.zeros((0,), y.dtype))


def huber_loss_bwd(residuals: Any, ct_losses: Any, *, delta: float, scale: float = 1.0) -> Any:
    d, like = residuals
    ct = broadcast(ct_losses[..., None] * (scale / max(d.shape[-1], 1)), d.shape)
    ct_y = (ct * jnp.clip(d, -delta, delta)).astype(like.dtype)  # the slope of the parabola, which the line keeps
    return ct_y, -ct_y


def _positive(name: str, what: str, value: Any, least: float) -> float:
    found = real_number(value)
    if found is None or not math.isfinite(found) or found < 0 or found < least:
        raise ValueError(f"{name}: {what} must be {'above' if least else 'at least'} 0, got {value!r}; 1.0 is usual.")
    return found


def _huber(name: str, reduction: str, **how: float) -> Layer[Array]:
    apply, fwd, bwd = (partial(f, **how) for f in (huber_loss_apply, huber_loss_fwd, huber_loss_bwd))
    return loss(name, Rows(apply, fwd, bwd, expect_targets(name)), reduction)


def huber_loss(*, delta: float = 1.0, reduction: str = "mean") -> Layer[Array]:
    """The mean over examples and outputs of d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2);  d = y - t.

    y, labels t: (..., n); weights: (...); reduction: "mean" over examples, "sum" or "none" (Huber 1964).
    The transpose: ct_y = ct clip(d, -delta, delta) / n, and ct_t its negative.
    Raises as `nnjax.mean_squared_error` does, and ValueError for a delta that is not above 0.

    >>> float(nnjax.huber_loss(delta=1.0).apply((), (jnp.array([[0.5, 3.0]]), jnp.zeros((1, 2)))))
    1.3125
    """
    return _huber("huber_loss", reduction, delta=_positive("huber_loss", "delta", delta, math.ulp(0.0)))


def absolute_error_apply(y: Array, labels: Array, shared: None = None) -> Array:
    """l = (1/n) sum_j |y_j - t_j|.  y, t: (..., n), l: (...) in float32 at least."""
    return jnp.abs(y.astype(wide(y)) - labels.astype(wide(y))).mean(-1)


def absolute_error_fwd(y: Array, labels: Array, shared: None = None) -> Any:
    return absolute_error_apply(y, labels), (y - labels,)


def absolute_error_bwd(residuals: Any, ct_losses: Any) -> Any:
    (difference,) = residuals
    ct = broadcast(ct_losses[..., None] * (1 / max(difference.shape[-1], 1)), difference.shape)
    ct_y = ct.astype(difference.dtype) * jnp.sign(difference)  # at the kink, 0, the slope is 0
    return ct_y, -ct_y


def smooth_l1_loss(*, beta: float = 1.0, reduction: str = "mean") -> Layer[Array]:
    """The mean over examples and outputs of d^2 / (2 beta) where |d| < beta, else |d| - beta / 2;  d = y - t.

    It is `huber_loss(delta=beta)` over beta, and |d| where beta is 0, with slope 0 at d = 0.
    y, labels t: (..., n); weights: (...); reduction: "mean" over examples, "sum" or "none".
    The transpose: ct_y = ct clip(d / beta, -1, 1) / n, and ct_t its negative.
    Raises as `nnjax.mean_squared_error` does, and ValueError for a negative beta.

    >>> float(nnjax.smooth_l1_loss(beta=2.0).apply((), (jnp.array([[1.0, 5.0]]), jnp.zeros((1, 2)))))
    2.125
    """
    name = "smooth_l1_loss"
    beta = _positive(name, "beta", beta, 0.0)
    if beta:
        return _huber(name, reduction, delta=beta, scale=1 / beta)
    return loss(name, Rows(absolute_error_apply, absolute_error_fwd, absolute_error_bwd, expect_targets(name)), reduction)
