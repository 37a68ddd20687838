"""What every spelling of a max-pool needs: one entry of every window, its transpose, and the first of several maxima."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from ..linear import shift, shift_t


def first_maximum(parts: Any) -> tuple[Array, Array]:
    """The maximum of the parts, and the number of the first part that has it."""
    y = parts[0]
    where = jnp.zeros(y.shape, jnp.int8 if len(parts) <= 127 else jnp.int32)
    for i, other in enumerate(parts[1:], 1):
        wins = (other > y) | jnp.isnan(other)  # a NaN stays, as it does in `reduce_window`
        y = jnp.where(wins, other, y)
        where = jnp.where(wins, jnp.asarray(i, where.dtype), where)
    return y, where


def seen(x: Array, i: Any, window: Any, stride: Any) -> Array:
    """x[p stride + i] for every place p of the window: its entry i.  x: (..., space, channels)."""
    first = x.ndim - 1 - len(window)
    for axis, (at, k, s) in enumerate(zip(i, window, stride), first):
        x = shift(x, axis, at, (x.shape[axis] - k) // s + 1, s)
    return x


def seen_t(ct_y: Array, i: Any, shape: Any, stride: Any) -> Array:
    """ct_x of this shape, with ct_x[p stride + i] = ct_y[p]."""
    first = ct_y.ndim - 1 - len(stride)
    for axis, (at, s) in enumerate(zip(i, stride), first):
        ct_y = shift_t(ct_y, axis, at, shape[axis], s)
    return ct_y
