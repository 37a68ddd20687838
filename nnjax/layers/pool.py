"""Pooling: maximum and mean over windows of space, and reshapes from images to features.

A window of an int pools (..., width, channels), a window of two ints (..., height, width, channels).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..errors import describe, expect_float, expect_params, expect_per_axis, expect_positive
from ..fast.choose import by_platform
from ..fast.cpu import pool as cpu
from ..fast.maximum import first_maximum, seen, seen_t
from ..fast.tpu import pool as tpu
from ..layer import Layer
from ..leaf import Like, leaf, outline, outlined
from ..linear import broadcast, wide


def _expect_windows(who, params, x, window) -> None:
    expect_params(who, params, tuple)
    expect_float(who, "x", x)
    if x.ndim <= len(window):
        space = "height, width" if len(window) == 2 else "width"
        raise ValueError(f"{who}: x must have shape (..., {space}, channels), got {describe(x)}; reshape it.")
    if any(n < k for n, k in zip(x.shape[-1 - len(window) : -1], window)):
        raise ValueError(
            f"{who}: the window {window} must fit into the input, got {describe(x)}; use a smaller window, or pad x."
        )


def _reduce(x, start, operator, window, stride, padding: str | Sequence[tuple[int, int]] = "VALID", spread=None):
    """The operator over every window, from `start`, by XLA's loop over windows; spread: the dilation of x, applied first."""
    lead = (1,) * (x.ndim - len(window) - 1)
    pads = padding if isinstance(padding, str) else [*((0, 0) for _ in lead), *padding, (0, 0)]
    base = None if spread is None else (*lead, *spread, 1)
    return lax.reduce_window(x, np.asarray(start, x.dtype), operator, (*lead, *window, 1), (*lead, *stride, 1), pads, base)


def max_pool_apply(params: Any, x: Array, *, key: Any = None, window: tuple[int, ...], stride: tuple[int, ...]) -> Array:
    """y[p] = max over i of x[p stride + i], i in the window.  x: (..., space, channels)."""
    _expect_windows("max_pool", params, x, window)
    return _reduce(x, -jnp.inf, lax.max, window, stride)


def max_pool_fwd(params: Any, x: Array, *, key: Any = None, window: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    _expect_windows("max_pool", params, x, window)
    y, where = first_maximum([seen(x, i, window, stride) for i in np.ndindex(window)])
    return y, (where, x)


def max_pool_bwd(residuals: Any, ct_y: Array, *, window: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    where, x = residuals
    # y[p] = x[p stride + i] for the one i with the maximum: its Jacobian selects, and the transpose puts ct_y[p] back there.
    zero, ct_x = jnp.zeros_like(ct_y), []
    for n, i in enumerate(np.ndindex(window)):
        won = where == jnp.asarray(n, where.dtype)
        ct_x.append(seen_t(jnp.where(won, ct_y, zero), i, x.shape, stride))
    return (), sum(ct_x[1:], ct_x[0])


def fast_max_pool_fwd(params: Any, x: Array, *, key: Any = None, window: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    """`max_pool_fwd`, spelled for the platform."""
    _expect_windows("max_pool", params, x, window)
    how = {"window": window, "stride": stride}
    y, where = by_platform(x, plain=_maximum, cpu=cpu.max_pool_fwd, tpu=tpu.max_pool_fwd, how=how)
    return y, (where, x)


def _maximum(x, *, window, stride):
    y, (where, _) = max_pool_fwd((), x, window=window, stride=stride)
    return y, where


def fast_max_pool_bwd(residuals: Any, ct_y: Array, *, window: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    """`max_pool_bwd`, spelled for the platform."""
    how = {"window": window, "stride": stride}
    return by_platform(residuals, ct_y, plain=max_pool_bwd, cpu=cpu.max_pool_bwd, tpu=tpu.max_pool_bwd, how=how)


def max_pool(window: int | tuple[int, ...], stride: int | tuple[int, ...] | None = None) -> Layer[Array]:
    """y[p] = max over i of x[p stride + i], i in the window, for windows that lie in x entirely.

    x: (..., width, channels) for an int or (k,), (..., height, width, channels) for (k, l); the stride is the window
    unless given. If several entries tie, the first in row-major order gets the whole cotangent, as in `jax.grad`.
    Raises ValueError for sizes that are not positive ints, and for an x smaller than the window.
    """
    fast = (fast_max_pool_fwd, fast_max_pool_bwd)
    return _pool("max_pool", window, stride, max_pool_apply, max_pool_fwd, max_pool_bwd, fast, lambda x: x)


def avg_pool_apply(params: Any, x: Array, *, key: Any = None, window: tuple[int, ...], stride: tuple[int, ...]) -> Array:
    """y[p] = mean over i of x[p stride + i], i in the window.  x: (..., space, channels)."""
    _expect_windows("avg_pool", params, x, window)
    sums = _reduce(x.astype(wide(x)), 0, lax.add, window, stride)
    return (sums / math.prod(window)).astype(x.dtype)


def avg_pool_fwd(params: Any, x: Array, *, key: Any = None, window: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    return avg_pool_apply(params, x, window=window, stride=stride), (outline(x),)


def avg_pool_bwd(residuals: Any, ct_y: Array, *, window: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    (like,) = residuals
    # Every entry of a window has weight 1 / size in its mean: it gets that share of ct_y back, from every window it is in.
    # These start at or before it, so the sum runs over a window that ends at it, over ct_y spread out by the stride.
    share, space = ct_y.astype(wide(ct_y)) / math.prod(window), outlined(like).shape[-1 - len(window) : -1]
    places = ct_y.shape[-1 - len(window) : -1]
    around = [(k - 1, n - (p - 1) * s - 1) for n, p, k, s in zip(space, places, window, stride)]
    ct_x = _reduce(share, 0, lax.add, window, (1,) * len(window), around, stride)
    return (), ct_x.astype(ct_y.dtype)


def fast_avg_pool_bwd(residuals: Any, ct_y: Array, *, window: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    """`avg_pool_bwd`, spelled for the platform."""
    return by_platform(residuals, ct_y, plain=avg_pool_bwd, cpu=cpu.avg_pool_bwd, how={"window": window, "stride": stride})


def avg_pool(window: int | tuple[int, ...], stride: int | tuple[int, ...] | None = None) -> Layer[Array]:
    """y[p] = mean over i of x[p stride + i], i in the window, for windows that lie in x entirely.

    x: (..., width, channels) for an int or (k,), (..., height, width, channels) for (k, l); the stride is the window
    unless given.  Raises ValueError for sizes that are not positive ints, and for an x smaller than the window.
    """
    fast = (avg_pool_fwd, fast_avg_pool_bwd)
    return _pool("avg_pool", window, stride, avg_pool_apply, avg_pool_fwd, avg_pool_bwd, fast, outlined)


def _pool(name, window, stride, apply, fwd, bwd, fast, of_x) -> Layer[Array]:
    window = expect_per_axis(name, "window", window)
    stride = window if stride is None else expect_per_axis(name, "stride", stride, len(window))
    label = f"{name}({window}{'' if stride == window else f', {stride}'})"
    apply, fwd, bwd, *fast = (partial(f, window=window, stride=stride) for f in (apply, fwd, bwd, *fast))

    def output(residuals):
        like = of_x(residuals[-1])
        space = like.shape[-1 - len(window) : -1]
        places = [(size - k) // s + 1 for size, k, s in zip(space, window, stride)]
        return Like((*like.shape[: -1 - len(window)], *places, like.shape[-1]), like.dtype)

    return leaf(label, lambda key: (), apply, fwd, bwd, output, fast=fast)


def global_avg_pool_apply(params: Any, x: Array, *, key: Any = None, axes: Any) -> Array:
    """y = mean of x over the `axes` axes before the last.  x: (..., space, channels), y: (..., channels)."""
    expect_params("global_avg_pool", params, tuple)
    expect_float("global_avg_pool", "x", x)
    if x.ndim <= axes or 0 in x.shape[-1 - axes : -1]:
        raise ValueError(
            f"global_avg_pool: x must have {axes} axes of space, none empty, before its channels, got {describe(x)}; "
            "set `axes` to their number."
        )
    return x.mean(tuple(range(x.ndim - 1 - axes, x.ndim - 1)))


def global_avg_pool_fwd(params: Any, x: Array, *, key: Any = None, axes: Any) -> Any:
    return global_avg_pool_apply(params, x, axes=axes), (outline(x),)


def global_avg_pool_bwd(residuals: Any, ct_y: Array, *, axes: Any) -> Any:
    (like,) = residuals
    shape = outlined(like).shape
    share = ct_y / math.prod(shape[-1 - axes : -1])
    # The mean sums over space, so its transpose copies over space.
    return (), broadcast(share.reshape(*ct_y.shape[:-1], *(1,) * axes, ct_y.shape[-1]), shape)


def global_avg_pool(axes: int = 2) -> Layer[Array]:
    """y = mean of x over its `axes` axes of space.  x: (..., height, width, channels), or (..., width, channels) for 1.

    y: (..., channels).  Raises ValueError if x has fewer axes, or no entries to average.
    """
    expect_positive("global_avg_pool", axes=axes)
    fs = (global_avg_pool_apply, global_avg_pool_fwd, global_avg_pool_bwd)
    apply, fwd, bwd = (cast(Callable[..., Any], partial(f, axes=axes)) for f in fs)

    def output(residuals):
        (like,) = residuals
        return Like((*like.shape[1 : -1 - axes], like.shape[-1]), like.dtype)

    return leaf(f"global_avg_pool({axes})", lambda key: (), apply, fwd, bwd, output)


def flatten_apply(params: Any, x: Array, *, key: Any = None, axes: Any) -> Array:
    """y = x with its last `axes` axes merged; all but the first if axes is None."""
    expect_params("flatten", params, tuple)
    expect_float("flatten", "x", x)
    kept = 1 if axes is None else x.ndim - axes
    if kept < 0 or x.ndim < 1:
        raise ValueError(f"flatten: x must have at least {axes or 1} axes, got {describe(x)}; pass more, or flatten fewer.")
    return x.reshape(*x.shape[:kept], math.prod(x.shape[kept:]))


def flatten_fwd(params: Any, x: Array, *, key: Any = None, axes: Any) -> Any:
    return flatten_apply(params, x, axes=axes), (outline(x),)


def flatten_bwd(residuals: Any, ct_y: Array) -> Any:
    (like,) = residuals
    return (), ct_y.reshape(outlined(like).shape)  # reshaping only renames entries: the transpose restores their names


def flatten(axes: int | None = None) -> Layer[Array]:
    """y = x with its last `axes` axes merged, or by default all but the first, the batch.

    x: (batch, ...), y: (batch, n); with axes=3, x: (..., height, width, channels), y: (..., n).
    Raises ValueError if x has fewer axes.
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
