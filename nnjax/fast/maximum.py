"""What every spelling of a max-pool needs: one entry of every window, its transpose, and the first of several maxima."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from ..linear import broadcast, shift, shift_t


def first_maximum(parts: Any, first: Any = None) -> tuple[Array, Array]:
    """The maximum of the parts, and the number of the first part that has it.

    first: where all parts are -inf, the number of the one that has it, of a shape that broadcasts to theirs; by default 0.
    """
    y = parts[0]
    dtype = jnp.int8 if len(parts) <= 127 else jnp.int32
    where = jnp.zeros(y.shape, dtype) if first is None else broadcast(jnp.asarray(first, dtype), y.shape)
    for i, other in enumerate(parts[1:], 1):
        wins = (other > y) | jnp.isnan(other)  # a NaN stays, as it does in `reduce_window`
        y = jnp.where(wins, other, y)
        where = jnp.where(wins, jnp.asarray(i, where.dtype), where)
    return y, where


def seen(x: Array, i: Any, window: Any, stride: Any, spacing: Any = None) -> Array:
    """x[p stride + i spacing] for every place p of the window: its entry i.  x: (..., space, channels)."""
    first = x.ndim - 1 - len(window)
    for axis, (at, k, s, d) in enumerate(zip(i, window, stride, spacing or (1,) * len(i)), first):
        x = shift(x, axis, at * d, (x.shape[axis] - (k - 1) * d - 1) // s + 1, s)
    return x


def seen_t(ct_y: Array, i: Any, shape: Any, stride: Any, spacing: Any = None) -> Array:
    """ct_x of this shape, with ct_x[p stride + i spacing] = ct_y[p]."""
    first = ct_y.ndim - 1 - len(stride)
    for axis, (at, s, d) in enumerate(zip(i, stride, spacing or (1,) * len(i)), first):
        ct_y = shift_t(ct_y, axis, at * d, shape[axis], s)
    return ct_y
