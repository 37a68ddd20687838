"""How the losses of the examples become a value: their mean, their sum, or nothing; each with its transpose.

Losses in bfloat16 and float16 arrive in float32, as sums and means in them would stall or overflow.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..linear import broadcast, wide

REDUCTIONS = ("mean", "sum", "none")


def expect_reduction(name: str, reduction: Any) -> None:
    """Raise ValueError unless it is one of these three."""
    if not isinstance(reduction, str) or reduction not in REDUCTIONS:
        raise ValueError(f"{name}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}; 'mean' is usual.")


def _over(x: Array, total: Array, otherwise: float) -> Array:
    """x / total, and this where the total is 0."""
    found = x / jnp.where(total == 0, jnp.ones_like(total), total)
    return jnp.where(total == 0, jnp.full_like(found, otherwise), found)


def _kept(losses: Array, w: Array) -> Array:
    """The losses, 0 where w = 0, as infinity times 0 would be NaN."""
    return jnp.where(w == 0, jnp.zeros_like(losses), losses)


def _total(losses: Array, w: Array | None, counts: Array | None) -> Array:
    """T = sum_i w_i c_i."""
    if w is None:
        return jnp.asarray(losses.size, losses.dtype) if counts is None else counts.sum()
    return w.sum() if counts is None else (w * counts).sum()


def reduced_apply(losses: Array, weights: Array | None, counts: Array | None, reduction: str) -> Array:
    """mean: sum_i w_i l_i / sum_i w_i c_i;  sum: sum_i w_i l_i;  none: w_i l_i.  An example with w_i = 0 is ignored.

    losses, weights w, counts c: (...); None for all 1. The value has the dtype of the losses; the weights may be narrower.
    A mean of nothing, T = 0, is NaN.
    """
    w = None if weights is None else weights.astype(losses.dtype)
    each = losses if w is None else w * _kept(losses, w)
    if reduction == "none":
        return each
    if reduction == "sum":
        return each.sum()
    if w is None and counts is None:
        return losses.mean()
    return _over(each.sum(), _total(losses, w, counts), np.nan)


def reduced_fwd(losses: Array, weights: Array | None, counts: Array | None, reduction: str) -> Any:
    value = reduced_apply(losses, weights, counts, reduction)
    return value, (losses, weights, counts, value if reduction == "mean" else None)


def reduced_bwd(residuals: Any, ct_value: Array, reduction: str) -> Any:
    losses, weights, counts, value = residuals
    w, share = None if weights is None else weights.astype(losses.dtype), ct_value.astype(losses.dtype)
    if reduction == "mean":
        total = _total(losses, w, counts)
        share = _over(share, total, 0)
        value = jnp.where(total == 0, jnp.zeros_like(value), value)
    share = broadcast(share, losses.shape)  # each of the three is a sum at most, so its transpose copies
    if weights is None or w is None:
        return share, None
    ct_weights = _kept(losses, w)
    if reduction == "mean":  # weight also reduces the share of all others
        value = broadcast(value, losses.shape)
        ct_weights = ct_weights - (value if counts is None else counts * value)
    return _kept(share * w, w), (share * ct_weights).astype(weights.dtype)


def shares(each: Array | None, total: Array | None, n: int, acc: Any) -> tuple[Array, Array]:
    """(share, most): what each of n rows counts relative to the largest, and what the largest counts in the value.

    each: (n,), None for all 1; total: what the sum of losses is divided by, None for 1. They are separate because float16
    cannot hold what one row counts in the mean of many, nor a probability times it.
    """
    share, top = jnp.ones((n,), acc), jnp.ones((), acc)
    if each is not None:
        each = each.reshape(n).astype(acc)
        top = lax.stop_gradient(jnp.abs(each).max(initial=0.0))
        share = jnp.where(each == 0, jnp.zeros_like(each), each / jnp.where(top == 0, jnp.ones_like(top), top))
    return share, top if total is None else _over(top, total, 0)


def total_weight(x: Any, counts: Callable[..., Any] | None = None) -> Array:
    """The total weight in the mean of a loss, for x as the loss takes it; counts: that of the loss, `Layer.counts`.

    It is the number of examples if there are no weights. Combine the means of several batches as
    sum(total_weight * value) / sum(total_weight), not as a mean of means.
    It is float32 at least, whatever the dtype of the weights: float16 counts to 2,048, and bfloat16 to 256.
    """
    y, labels, *weights = x
    y = jax.tree.leaves(y)[0]  # of a fused loss the rows that it multiplies by a matrix; of a pair with a sum, not the sum
    return weight_in(labels, weights[0] if weights else None, counts, y.shape[:-1], wide(y))


def weight_in(labels: Any, weights: Any, counts: Callable[..., Any] | None, shape: tuple[int, ...], dtype: Any) -> Array:
    """`total_weight` from the labels and weights (None for all 1) of examples of this shape, in this dtype."""
    each = None if counts is None else counts(labels, dtype)
    if each is None:
        return jnp.asarray(np.prod(shape), dtype) if weights is None else weights.sum(dtype=dtype)
    return each.sum() if weights is None else (each * weights.astype(dtype)).sum()
