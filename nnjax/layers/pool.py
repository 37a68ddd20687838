"""Pooling: maximum and mean over windows of space, and the reshapes that lead from images to features.

A window of an int pools (..., width, channels), a window of two ints (..., height, width, channels). Windows side by side
are cut out of x as they are. Where they overlap, or leave gaps, the hand-written pairs pool one axis after the other, and
go back in the reverse order: a maximum over a rectangle is a maximum over rows of maxima along each row, and a mean
likewise.
"""

import math
from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..errors import describe, expect_float, expect_params, expect_per_axis, expect_positive
from ..layer import Layer
from ..leaf import Like, leaf
from ..linear import broadcast, shift, shift_t, tiles, tiles_t, wide


def _expect_windows(who, params, x, window) -> None:
    expect_params(who, params, tuple)
    expect_float(who, "x", x)
    if x.ndim <= len(window):
        space = "height, width" if len(window) == 2 else "width"
        raise ValueError(f"{who}: x must have shape (..., {space}, channels), got {describe(x)}; reshape it.")
    if any(n < k for n, k in zip(x.shape[-1 - len(window) : -1], window)):
        raise ValueError(
            f"{who}: the window {window} must fit into the input, got {describe(x)}; take a smaller window, or pad x."
        )


def _reduce(x, start, operator, window, stride):
    """operator over every window, from `start`, by XLA's own loop over windows."""
    lead = (1,) * (x.ndim - len(window) - 1)
    return lax.reduce_window(x, np.asarray(start, x.dtype), operator, (*lead, *window, 1), (*lead, *stride, 1), "VALID")


def _sizes(like, window):
    """(axis, its length) of each pooled axis of the x whose shape `like` (0, *shape) carries."""
    axes = range(like.ndim - 2 - len(window), like.ndim - 2)
    return [(axis, like.shape[1 + axis]) for axis in axes]


def _like(x):
    # bwd needs the shape of x, of which the output has lost what no window saw; an empty array carries it for nothing.
    return jnp.zeros((0, *x.shape), x.dtype)


def max_pool_apply(params, x, *, key=None, window, stride):
    """y[p] = max over i of x[p stride + i], i in the window.  x: (..., space, channels)."""
    _expect_windows("max_pool", params, x, window)
    return _reduce(x, -jnp.inf, lax.max, window, stride)


def max_pool_fwd(params, x, *, key=None, window, stride):
    _expect_windows("max_pool", params, x, window)
    like, first = _like(x), []
    if window == stride:
        cut = tiles(x, window)
        x, where = _first_maximum([cut[_place(cut, i)] for i in np.ndindex(window)])
        return x, ((where,), like)
    for (axis, size), k, s in reversed(list(zip(_sizes(like, window), window, stride))):
        x, where = _first_maximum([shift(x, axis, i, (size - k) // s + 1, s) for i in range(k)])
        first.insert(0, where)
    return x, (tuple(first), like)


def max_pool_bwd(residuals, ct_y, *, window, stride):
    first, like = residuals
    # y[p] = x[p stride + i] for the one i that won: its Jacobian selects, and the transpose puts ct_y[p] back there.
    if window == stride:
        (where,) = first
        ct_y, where = _over_window(ct_y, window), _over_window(where, window)
        i = jnp.arange(math.prod(window), dtype=where.dtype).reshape(*(n for k in window for n in (1, k)), 1)
        won = where == broadcast(i, where.shape)
        return (), tiles_t(jnp.where(won, ct_y, jnp.zeros_like(ct_y)), like.shape[1:])
    for where, (axis, size), k, s in zip(first, _sizes(like, window), window, stride):
        zero = jnp.zeros_like(ct_y)
        won = [jnp.where(where == jnp.asarray(i, where.dtype), ct_y, zero) for i in range(k)]
        ct_y = _put_back(won, axis, size, s)
    return (), ct_y


def _place(cut, i):
    """The index of the entry i of every window in `tiles`."""
    return (*(slice(None),) * (cut.ndim - 1 - 2 * len(i)), *(n for j in i for n in (slice(None), j)))


def _over_window(ct_y, window):
    """(..., n1, n2, channels), copied to every entry of its window: (..., n1, k1, n2, k2, channels)."""
    lead, space = ct_y.shape[: -1 - len(window)], ct_y.shape[-1 - len(window) : -1]
    ct_y = ct_y.reshape(*lead, *(m for n in space for m in (n, 1)), ct_y.shape[-1])
    return broadcast(ct_y, (*lead, *(m for n, k in zip(space, window) for m in (n, k)), ct_y.shape[-1]))


def _first_maximum(parts):
    """The maximum of the parts, and the number of the first that has it."""
    y = parts[0]
    where = jnp.zeros(y.shape, jnp.int8 if len(parts) <= 127 else jnp.int32)
    for i, other in enumerate(parts[1:], 1):
        wins = (other > y) | jnp.isnan(other)  # a NaN stays, as it does in `reduce_window`
        y = jnp.where(wins, other, y)
        where = jnp.where(wins, jnp.asarray(i, where.dtype), where)
    return y, where


def _put_back(parts, axis, size, stride):
    """sum_i shift_t(parts[i], start=i) along one axis of length `size`."""
    ct_x = shift_t(parts[0], axis, 0, size, stride)
    for i, part in enumerate(parts[1:], 1):
        ct_x = ct_x + shift_t(part, axis, i, size, stride)
    return ct_x


def _spread(ct_y, window, sizes):
    """ct_y at every place of its window, windows side by side: a term for each place, which XLA writes in one pass.

    2x2, 64x28x28x32: 0.64 and 0.69 of jax.grad's time on JAX 0.10 and 0.12; copied by broadcasting, 1.2 on both.
    """
    zero, ct_x = jnp.zeros((), ct_y.dtype), []
    for i in np.ndindex(window):
        amounts = [(0, 0, 0)] * ct_y.ndim
        for start, (axis, size), k in zip(i, sizes, window):
            amounts[axis] = (start, size - start - (ct_y.shape[axis] - 1) * k - 1, k - 1)
        ct_x.append(lax.pad(ct_y, zero, amounts))  # shift_t along both axes; one after the other they are two passes
    return sum(ct_x[1:], ct_x[0])


def max_pool(window: int | tuple[int, ...], stride: int | tuple[int, ...] | None = None) -> Layer:
    """y[p] = max over i of x[p stride + i], i in the window, where the whole window lies in x.

    x: (..., width, channels) for an int or (k,), (..., height, width, channels) for (k, l); the stride is the window
    unless given. Of several maxima the first, in row-major order, gets the whole cotangent, as in `jax.grad`.
    Raises ValueError for sizes that are not positive ints, and for an x smaller than the window.
    """
    return _pool("max_pool", window, stride, max_pool_apply, max_pool_fwd, max_pool_bwd)


def avg_pool_apply(params, x, *, key=None, window, stride):
    """y[p] = mean over i of x[p stride + i], i in the window.  x: (..., space, channels)."""
    _expect_windows("avg_pool", params, x, window)
    sums = _reduce(x.astype(wide(x)), 0, lax.add, window, stride)
    return (sums / math.prod(window)).astype(x.dtype)


def avg_pool_fwd(params, x, *, key=None, window, stride):
    return avg_pool_apply(params, x, window=window, stride=stride), (_like(x),)


def avg_pool_bwd(residuals, ct_y, *, window, stride):
    (like,) = residuals
    # Every entry of a window counted for 1 / size of its mean: each gets that share of ct_y, from every window it is in.
    ct_x = ct_y.astype(wide(ct_y)) / math.prod(window)
    if window == stride:
        return (), _spread(ct_x.astype(ct_y.dtype), window, _sizes(like, window))
    for (axis, size), k, s in zip(_sizes(like, window), window, stride):
        ct_x = _put_back([ct_x] * k, axis, size, s)
    return (), ct_x.astype(ct_y.dtype)


def avg_pool(window: int | tuple[int, ...], stride: int | tuple[int, ...] | None = None) -> Layer:
    """y[p] = mean over i of x[p stride + i], i in the window, where the whole window lies in x.

    x: (..., width, channels) for an int or (k,), (..., height, width, channels) for (k, l); the stride is the window
    unless given.  Raises ValueError for sizes that are not positive ints, and for an x smaller than the window.
    """
    return _pool("avg_pool", window, stride, avg_pool_apply, avg_pool_fwd, avg_pool_bwd)


def _pool(name, window, stride, apply, fwd, bwd) -> Layer:
    window = expect_per_axis(name, "window", window)
    stride = window if stride is None else expect_per_axis(name, "stride", stride, len(window))
    label = f"{name}({window}{'' if stride == window else f', {stride}'})"
    apply, fwd, bwd = (partial(f, window=window, stride=stride) for f in (apply, fwd, bwd))

    def output(residuals):
        like = residuals[-1]
        places = [(size - k) // s + 1 for (_, size), k, s in zip(_sizes(like, window), window, stride)]
        return Like((*like.shape[1 : -1 - len(window)], *places, like.shape[-1]), like.dtype)

    return leaf(label, lambda key: (), apply, fwd, bwd, output)


def global_avg_pool_apply(params, x, *, key=None, axes):
    """y = mean of x over the `axes` axes before the last.  x: (..., space, channels), y: (..., channels)."""
    expect_params("global_avg_pool", params, tuple)
    expect_float("global_avg_pool", "x", x)
    if x.ndim <= axes or 0 in x.shape[-1 - axes : -1]:
        raise ValueError(
            f"global_avg_pool: x must have {axes} axes of space, none empty, before its channels, got {describe(x)}; "
            "say with `axes` how many there are."
        )
    return x.mean(tuple(range(x.ndim - 1 - axes, x.ndim - 1)))


def global_avg_pool_fwd(params, x, *, key=None, axes):
    return global_avg_pool_apply(params, x, axes=axes), (_like(x),)


def global_avg_pool_bwd(residuals, ct_y, *, axes):
    (like,) = residuals
    shape = like.shape[1:]
    share = ct_y / math.prod(shape[-1 - axes : -1])
    # The mean summed over space, so its transpose copies over space.
    return (), broadcast(share.reshape(*ct_y.shape[:-1], *(1,) * axes, ct_y.shape[-1]), shape)


def global_avg_pool(axes: int = 2) -> Layer:
    """y = mean of x over its `axes` axes of space.  x: (..., height, width, channels), or (..., width, channels) for 1.

    y: (..., channels).  Raises ValueError where x has fewer axes, or no entries to average.
    """
    expect_positive("global_avg_pool", axes=axes)
    fs = (global_avg_pool_apply, global_avg_pool_fwd, global_avg_pool_bwd)
    apply, fwd, bwd = (partial(f, axes=axes) for f in fs)

    def output(residuals):
        (like,) = residuals
        return Like((*like.shape[1 : -1 - axes], like.shape[-1]), like.dtype)

    return leaf(f"global_avg_pool({axes})", lambda key: (), apply, fwd, bwd, output)


def flatten_apply(params, x, *, key=None, axes):
    """y = x with its last `axes` axes made one; all but the first where axes is None."""
    expect_params("flatten", params, tuple)
    expect_float("flatten", "x", x)
    kept = 1 if axes is None else x.ndim - axes
    if kept < 0 or x.ndim < 1:
        raise ValueError(f"flatten: x must have at least {axes or 1} axes, got {describe(x)}; pass more, or flatten fewer.")
    return x.reshape(*x.shape[:kept], math.prod(x.shape[kept:]))


def flatten_fwd(params, x, *, key=None, axes):
    return flatten_apply(params, x, axes=axes), (_like(x),)


def flatten_bwd(residuals, ct_y):
    (like,) = residuals
    return (), ct_y.reshape(like.shape[1:])  # reshaping only renames entries: the transpose names them back


def flatten(axes: int | None = None) -> Layer:
    """y = x with its last `axes` axes made one, or all but the first, the batch, where `axes` is not given.

    x: (batch, ...), y: (batch, n); with axes=3, x: (..., height, width, channels), y: (..., n).
    Raises ValueError where x has fewer axes.
    """
    if axes is not None:
        expect_positive("flatten", axes=axes)
    name = "flatten" if axes is None else f"flatten({axes})"
    apply, fwd = partial(flatten_apply, axes=axes), partial(flatten_fwd, axes=axes)

    def output(residuals):
        (like,) = residuals
        kept = 2 if axes is None else like.ndim - axes
        return Like((*like.shape[1:kept], math.prod(like.shape[kept:])), like.dtype)

    return leaf(name, lambda key: (), apply, fwd, flatten_bwd, output)
