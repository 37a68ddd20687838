"""Pooling: maximum and mean over windows of space, and reshapes from images to features.

A window of an int pools (..., width, channels), a window of two ints (..., height, width, channels), a window of three ints
(..., depth, height, width, channels).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..errors import describe, expect_float, expect_params, expect_positive
from ..fast.choose import by_platform
from ..fast.cpu import pool as cpu
from ..fast.maximum import first_maximum, seen, seen_t
from ..fast.tpu import pool as tpu
from ..layer import Layer
from ..leaf import Like, leaf, outline, outlined
from ..linear import Amounts, broadcast, wide
from .pooling.windows import Pool, expect_windows, make_pool


def _reduce(x, start, operator, window, stride, padding: Amounts, spread=None):
    """The operator over every window, from `start`, by XLA's loop over windows; spread: the dilation of x, applied first."""
    lead = (1,) * (x.ndim - len(window) - 1)
    pads = [*((0, 0) for _ in lead), *padding, (0, 0)]
    base = None if spread is None else (*lead, *spread, 1)
    return lax.reduce_window(x, np.asarray(start, x.dtype), operator, (*lead, *window, 1), (*lead, *stride, 1), pads, base)


def max_pool_apply(params: Any, x: Array, *, key: Any = None, pool: Pool) -> Array:
    """y[p] = max over i of x[p stride + i dilation - padding], i in the window.  x: (..., space, channels)."""
    expect_windows("max_pool", params, x, pool)
    if pool.dilation is None:
        return _reduce(x, -jnp.inf, lax.max, pool.window, pool.stride, pool.around(pool.space(x.shape)))
    # JAX has no gradient of a dilated reduce_window: read the entry with the maximum, the first if there are several.
    parts = jnp.stack(_entries(pool.surround(x, -jnp.inf), pool))
    return jnp.take_along_axis(parts, lax.argmax(parts, 0, jnp.int32)[None], 0)[0]


def max_pool_fwd(params: Any, x: Array, *, key: Any = None, pool: Pool) -> Any:
    expect_windows("max_pool", params, x, pool)
    y, where = first_maximum(_entries(pool.surround(x, -jnp.inf), pool), pool.number(pool.space(x.shape)))
    return y, (where, x)


def max_pool_bwd(residuals: Any, ct_y: Array, *, pool: Pool) -> Any:
    where, x = residuals
    shape = pool.padded(x.shape)
    # y[p] = x[p stride + i] for the one i with the maximum: its Jacobian selects, and the transpose puts ct_y[p] back there.
    zero, ct_x = jnp.zeros_like(ct_y), []
    for n, i in enumerate(np.ndindex(pool.window)):
        won = where == jnp.asarray(n, where.dtype)
        ct_x.append(seen_t(jnp.where(won, ct_y, zero), i, shape, pool.stride, pool.spacing))
    return (), pool.surround_t(sum(ct_x[1:], ct_x[0]), x.shape)


def _entries(x, pool):
    """The entry i of every window, for each i.  x: with what lies around it."""
    return [seen(x, i, pool.window, pool.stride, pool.spacing) for i in np.ndindex(pool.window)]


def _platforms(pool: Pool, cpu: Any, tpu: Any) -> dict[str, Any]:
    """The spellings that serve these windows."""
    if pool.dilation is not None:
        return {}
    return {"tpu": tpu, **({"cpu": cpu} if len(pool.window) < 3 or pool.window == pool.stride else {})}


def fast_max_pool_fwd(params: Any, x: Array, *, key: Any = None, pool: Pool) -> Any:
    """`max_pool_fwd`, spelled for the platform."""
    expect_windows("max_pool", params, x, pool)
    fast = _platforms(pool, cpu.max_pool_fwd, tpu.max_pool_fwd)
    y, where = by_platform(x, plain=_maximum, how={"pool": pool}, **fast)
    return y, (where, x)


def _maximum(x, *, pool):
    y, (where, _) = max_pool_fwd((), x, pool=pool)
    return y, where


def fast_max_pool_bwd(residuals: Any, ct_y: Array, *, pool: Pool) -> Any:
    """`max_pool_bwd`, spelled for the platform."""
    fast = _platforms(pool, cpu.max_pool_bwd, tpu.max_pool_bwd)
    return by_platform(residuals, ct_y, plain=max_pool_bwd, how={"pool": pool}, **fast)


def max_pool(
    window: int | tuple[int, ...],
    stride: int | tuple[int, ...] | None = None,
    padding: str | int | Sequence[int | tuple[int, int]] = "VALID",
    *,
    dilation: int | tuple[int, ...] = 1,
    ceil_mode: bool = False,
) -> Layer[Array]:
    """y[p] = max over i of x[p stride + i dilation - padding], i in the window.

    x: (..., width, channels) for an int or (k,), (..., height, width, channels) for (k, l), (..., depth, height, width,
    channels) for (k, l, m); the stride is the window unless given. padding: as in `conv`; it never wins, so a window that
    sees nothing else, as only a dilated one can, gives -inf and has no gradient. With ceil_mode the last window may reach
    beyond the end, if it begins before it. If several entries tie, the first in row-major order gets the whole cotangent, as
    in `jax.grad`: the transpose of a choice puts it back where it was taken from.
    Raises ValueError for sizes that are not positive ints, for a padding as large as the window, and for an x smaller than it.

    >>> x = jnp.array([1.0, 3.0, 2.0, 0.0])[:, None]
    >>> nnjax.max_pool(2).apply((), x).ravel().tolist(), nnjax.max_pool(3, 2, padding=1).apply((), x).ravel().tolist()
    ([3.0, 2.0], [3.0, 3.0])
    """
    pool = make_pool("max_pool", window, stride, padding, dilation=dilation, ceil_mode=ceil_mode)
    return _pool("max_pool", pool, (max_pool_apply, max_pool_fwd, max_pool_bwd), (fast_max_pool_fwd, fast_max_pool_bwd), _of_x)


def avg_pool_apply(params: Any, x: Array, *, key: Any = None, pool: Pool) -> Array:
    """y[p] = mean over i of x[p stride + i - padding], i in the window.  x: (..., space, channels)."""
    expect_windows("avg_pool", params, x, pool)
    space = pool.space(x.shape)
    sums = _reduce(x.astype(wide(x)), 0, lax.add, pool.window, pool.stride, pool.around(space))
    return pool.divided(sums, space).astype(x.dtype)


def avg_pool_fwd(params: Any, x: Array, *, key: Any = None, pool: Pool) -> Any:
    return avg_pool_apply(params, x, pool=pool), (outline(x),)


def avg_pool_bwd(residuals: Any, ct_y: Array, *, pool: Pool) -> Any:
    (like,) = residuals
    # Every entry of a window has weight 1 / size in its mean: it gets that share of ct_y back, from every window it is in.
    # These start at or before it, so the sum runs over a window that ends at it, over ct_y spread out by the stride.
    space, places = pool.space(outlined(like).shape), pool.space(ct_y.shape)
    share = pool.divided(ct_y.astype(wide(ct_y)), space)
    sizes = zip(space, places, pool.window, pool.stride, pool.around(space))
    around = tuple((k - 1 - a, n + a - (p - 1) * s - 1) for n, p, k, s, (a, _) in sizes)
    ct_x = _reduce(share, 0, lax.add, pool.window, (1,) * len(pool.window), around, pool.stride)
    return (), ct_x.astype(ct_y.dtype)


def fast_avg_pool_bwd(residuals: Any, ct_y: Array, *, pool: Pool) -> Any:
    """`avg_pool_bwd`, spelled for the platform."""
    return by_platform(residuals, ct_y, plain=avg_pool_bwd, cpu=cpu.avg_pool_bwd, how={"pool": pool})


def avg_pool(
    window: int | tuple[int, ...],
    stride: int | tuple[int, ...] | None = None,
    padding: str | int | Sequence[int | tuple[int, int]] = "VALID",
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Layer[Array]:
    """y[p] = mean over i of x[p stride + i - padding], i in the window; its transpose gives every entry of a window its share.

    x, stride, padding and ceil_mode: as in `max_pool`. Padding counts as entries that are 0, or not at all
    (`count_include_pad=False`); what ceil_mode adds beyond it never counts. divisor: divide every sum by this instead.
    Raises ValueError for sizes that are not positive ints, for a padding as large as the window, and for an x smaller than it.

    >>> x = jnp.array([1.0, 3.0, 2.0, 0.0])[:, None]
    >>> nnjax.avg_pool(2).apply((), x).ravel().tolist()
    [2.0, 1.0]
    >>> nnjax.avg_pool(3, 2, "SAME", count_include_pad=False).apply((), x).ravel().tolist()
    [2.0, 1.0]
    """
    pool = make_pool(
        "avg_pool", window, stride, padding, ceil_mode=ceil_mode, include=count_include_pad, divisor=divisor
    )  # fmt: skip
    return _pool("avg_pool", pool, (avg_pool_apply, avg_pool_fwd, avg_pool_bwd), (avg_pool_fwd, fast_avg_pool_bwd), outlined)


def _of_x(x):
    return x


def _pool(name, pool, plain, fast, of_x) -> Layer[Array]:
    told = {"padding": "" if pool.padding == "VALID" else pool.padding, "dilation": pool.dilation, "ceil_mode": pool.ceil}
    others = "".join(f", {option}={value}" for option, value in told.items() if value)
    label = f"{name}({pool.window}{'' if pool.stride == pool.window else f', {pool.stride}'}{others})"
    apply, fwd, bwd, *fast = (partial(f, pool=pool) for f in (*plain, *fast))

    def output(residuals):
        like = of_x(residuals[-1])
        return Like((*like.shape[: -1 - len(pool.window)], *pool.places(pool.space(like.shape)), like.shape[-1]), like.dtype)

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

    >>> nnjax.global_avg_pool().apply((), jnp.ones((2, 7, 7, 3))).shape
    (2, 3)
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

    >>> nnjax.flatten().apply((), jnp.ones((2, 28, 28, 1))).shape
    (2, 784)
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
