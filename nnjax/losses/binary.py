"""The cross-entropy of labels that are yes or no, each output for itself."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ..errors import describe
from ..layer import Layer
from ..linear import broadcast, wide
from .example import Rows, constants, loss
from .regression import expect_targets


def _sides(y, labels, pos_weight):
    """(-|y|, r, m, tail): the weight r of the other side than the logit's, (1 - t) where y > 0, p t elsewhere; the weight m of
    both, p t + 1 - t; tail = log1p(exp(-|y|)).

    An infinite logit with r = 0 counts as 0, to avoid 0 times infinity.
    """
    y, t = y.astype(wide(y)), labels.astype(wide(y))
    positive = t if pos_weight is None else broadcast(jnp.asarray(pos_weight).astype(y.dtype), y.shape) * t
    against = jnp.where(y > 0, 1 - t, positive)
    minus_abs = jnp.where(y > 0, -y, y)
    tail = jnp.log1p(jnp.exp(minus_abs))
    both = None if pos_weight is None else positive + (1 - t)
    return jnp.where(jnp.isinf(y) & (against == 0), jnp.zeros_like(y), minus_abs), against, both, tail


def binary_cross_entropy_apply(y: Array, labels: Array, pos_weight: Any = None) -> Array:
    """l = -(1/n) sum_j [p_j t log s(y) + (1 - t) log(1 - s(y))], s the sigmoid.  y, t: (..., n), p: (n,), l: (...) in float32
    at least.

    Written as |y| r + m log1p(exp(-|y|)), r the weight of the other side than y, m of both, so that there is never a log(0)
    or an overflow.
    """
    minus_abs, against, both, tail = _sides(y, labels, pos_weight)
    return ((tail if both is None else both * tail) - minus_abs * against).mean(-1)


def binary_cross_entropy_fwd(y: Array, labels: Array, pos_weight: Any = None) -> Any:
    return binary_cross_entropy_apply(y, labels, pos_weight), (y, labels, pos_weight)


def binary_cross_entropy_bwd(residuals: Any, ct_losses: Any) -> Any:
    y, labels, pos_weight = residuals  # without p, dl/dy = s(y) - t, from the side where s(y) or 1 - s(y) is not rounded away
    minus_abs, against, both, tail = _sides(y, labels, pos_weight)
    ct = broadcast(ct_losses[..., None] * (1 / max(y.shape[-1], 1)), y.shape)
    other = jax.nn.sigmoid(jnp.where(y > 0, -y, y).astype(ct.dtype))
    slope = against - (other if both is None else both * other)
    ct_y = ct * jnp.where(y > 0, slope, -slope)
    for_t = jnp.where(y > 0, minus_abs, -minus_abs)
    if pos_weight is not None:
        p = broadcast(jnp.asarray(pos_weight).astype(ct.dtype), y.shape)
        for_t = jnp.where(y > 0, minus_abs, -p * minus_abs) + (p - 1) * tail
    return ct_y.astype(y.dtype), (ct * for_t).astype(y.dtype)


def _expect(name: str) -> Any:
    fits = expect_targets(name)

    def check(y, labels, weights, pos_weight):
        fits(y, labels, weights, None)
        if pos_weight is not None and tuple(pos_weight.shape) not in ((), (y.shape[-1],)):
            raise ValueError(
                f"{name}: pos_weight must be a number or have shape {(y.shape[-1],)}, one for each output, got "
                f"{describe(pos_weight)}."
            )

    return check


def binary_rows(name: str) -> Rows:
    return Rows(binary_cross_entropy_apply, binary_cross_entropy_fwd, binary_cross_entropy_bwd, _expect(name))


def binary_cross_entropy(*, pos_weight: Any = None, reduction: str = "mean") -> Layer[Array]:
    """The mean over examples and outputs of the cross-entropy of labels t in [0, 1] with sigmoid(y).

    y are logits.  y, labels t: (..., n); weights: (...).  pos_weight p: a number or (n,), the weight of t = 1 beside t = 0;
    the loss is -p t log s(y) - (1 - t) log(1 - s(y)). reduction: "mean" over examples, "sum" or "none".
    The transpose: ct_y = ct (s(y) - t) / n, and with p, ct ((p t + 1 - t) s(y) - p t) / n.
    Raises TypeError and ValueError where y, labels and weights are not of one dtype and of these shapes.

    >>> loss = nnjax.binary_cross_entropy()
    >>> round(float(loss.apply((), (jnp.zeros((2, 3)), jnp.ones((2, 3))))), 4)
    0.6931
    """
    name = "binary_cross_entropy"
    p = None if pos_weight is None else constants(name, "pos_weight", pos_weight)
    return loss(name, binary_rows(name), reduction, p)
