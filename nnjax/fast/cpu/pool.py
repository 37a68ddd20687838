"""Pooling on a CPU. Windows side by side are slices of x. Windows that overlap, or leave gaps, are pooled one axis after the
other, and back in reverse order: the maximum over a rectangle is that over the maxima of its rows.

pool: a `nnjax.layers.pooling.windows.Pool` without dilation.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ...linear import broadcast, shift, shift_t, tiles, tiles_t, wide
from ..maximum import first_maximum, seen

# Entries of a window up to which each is a term of one sum (bench case `avg_pool 3x3 padded`).
AT_ONCE = 16


def max_pool_fwd(x: Array, *, pool: Any) -> Any:
    """(y, the number of each window's first maximum)."""
    window, stride, space = pool.window, pool.stride, pool.space(x.shape)
    x = pool.surround(x, -jnp.inf)
    if window == stride:
        cut = tiles(x, window)
        return first_maximum([cut[_place(cut, i)] for i in np.ndindex(window)], pool.number(space))
    if len(window) == 1:
        return first_maximum([seen(x, i, window, stride) for i in np.ndindex(window)], pool.number(space))
    (k, l), (s, t), first = window, stride, pool.first(space)
    at_row, at_column = (None, None) if first is None else (first[0][:, None, None], first[1][:, None])
    rows, j = first_maximum([seen(x, (n,), (l,), (t,)) for n in range(l)], at_column)
    y, i = first_maximum([_row(rows, n, k, s) for n in range(k)], at_row)
    dtype = jnp.int8 if k * l <= 127 else jnp.int32
    where = jnp.zeros(i.shape, dtype)
    for n in range(k):  # the column belongs to the row with the maximum
        number = _row(j, n, k, s).astype(dtype) + jnp.asarray(n * l, dtype)
        where = jnp.where(i == jnp.asarray(n, i.dtype), number, where)
    return y, where


def _row(rows, n, k, s):
    """The n-th row of every window.  rows: (..., height, width, channels)."""
    return shift(rows, rows.ndim - 3, n, (rows.shape[-3] - k) // s + 1, s)


def max_pool_bwd(residuals: Any, ct_y: Array, *, pool: Any) -> Any:
    """As `nnjax.layers.pool.max_pool_bwd`."""
    where, x = residuals
    window, stride = pool.window, pool.stride
    shape = pool.padded(x.shape)
    if window == stride:
        ct_y, where = _over_window(ct_y, window), _over_window(where, window)
        i = jnp.arange(math.prod(window), dtype=where.dtype).reshape(*(n for k in window for n in (1, k)), 1)
        won = where == broadcast(i, where.shape)
        return (), pool.surround_t(tiles_t(jnp.where(won, ct_y, jnp.zeros_like(ct_y)), shape), x.shape)
    if len(window) == 1:
        ct_x = _back(ct_y, where, ct_y.ndim - 2, window[0], shape[-2], stride[0])
        return (), pool.surround_t(ct_x, x.shape)
    (k, l), (s, t), height = window, stride, ct_y.ndim - 3
    i = where // jnp.asarray(l, where.dtype)
    j = where - i * jnp.asarray(l, where.dtype)
    rows = _back(ct_y, i, height, k, shape[-3], s)
    # Windows that took their maximum from the same row took it from the same column.
    column = shift_t(jnp.where(i == jnp.zeros_like(i), j, jnp.zeros_like(j)), height, 0, shape[-3], s)
    for n in range(1, k):
        won = jnp.where(i == jnp.asarray(n, i.dtype), j, jnp.zeros_like(j))
        column = jnp.maximum(column, shift_t(won, height, n, shape[-3], s))
    return (), pool.surround_t(_back(rows, column, height + 1, l, shape[-2], t), x.shape)


def _back(ct_y, where, axis, k, size, stride):
    """ct_y along one axis, to the one of k entries that `where` selects."""
    zero = jnp.zeros_like(ct_y)
    return _put_back([jnp.where(where == jnp.asarray(n, where.dtype), ct_y, zero) for n in range(k)], axis, size, stride)


def _place(cut, i):
    """The index of the entry i of every window in `tiles`."""
    return (*(slice(None),) * (cut.ndim - 1 - 2 * len(i)), *(n for j in i for n in (slice(None), j)))


def _over_window(ct_y, window):
    """(..., n1, n2, channels), copied to every entry of its window: (..., n1, k1, n2, k2, channels)."""
    lead, space = ct_y.shape[: -1 - len(window)], ct_y.shape[-1 - len(window) : -1]
    ct_y = ct_y.reshape(*lead, *(m for n in space for m in (n, 1)), ct_y.shape[-1])
    return broadcast(ct_y, (*lead, *(m for n, k in zip(space, window) for m in (n, k)), ct_y.shape[-1]))


def _put_back(parts, axis, size, stride, before=0):
    """sum_i shift_t(parts[i], start=i - before) along one axis of length `size`, without what falls outside."""
    ct_x = shift_t(parts[0], axis, -before, size, stride)
    for i, part in enumerate(parts[1:], 1):
        ct_x = ct_x + shift_t(part, axis, i - before, size, stride)
    return ct_x


def avg_pool_bwd(residuals: Any, ct_y: Array, *, pool: Any) -> Any:
    """As `nnjax.layers.pool.avg_pool_bwd`."""
    (like,) = residuals
    shape = like.shape[1:]
    space = pool.space(shape)
    ct_x = pool.divided(ct_y.astype(wide(ct_y)), space)
    if math.prod(pool.window) <= AT_ONCE or pool.window == pool.stride:
        return (), _spread(ct_x, pool, space).astype(ct_y.dtype)
    axes = zip(range(ct_y.ndim - 1 - len(space), ct_y.ndim - 1), space, pool.window, pool.stride, pool.around(space))
    for axis, size, k, s, (before, _) in axes:
        ct_x = _put_back([ct_x] * k, axis, size, s, before)
    return (), ct_x.astype(ct_y.dtype)


def _spread(ct_y, pool, space):
    """ct_y at every place of its window, with a term for each entry of it, which XLA writes in one pass."""
    zero, ct_x, first = jnp.zeros((), ct_y.dtype), [], ct_y.ndim - 1 - len(space)
    for i in np.ndindex(pool.window):
        amounts = [(0, 0, 0)] * ct_y.ndim
        for axis, (at, size, s, (before, _)) in enumerate(zip(i, space, pool.stride, pool.around(space)), first):
            start = at - before
            amounts[axis] = (start, size - start - (ct_y.shape[axis] - 1) * s - 1, s - 1)
        ct_x.append(lax.pad(ct_y, zero, amounts))  # shift_t along all axes at once; one after the other takes more passes
    return sum(ct_x[1:], ct_x[0])
