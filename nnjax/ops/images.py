"""Convolutions and pools inside anyone's `jax.grad`."""

from collections.abc import Sequence
from typing import Any

from jax import Array

from .. import layers
from ..errors import describe, expect_per_axis, expect_positive
from ..layer import as_custom_vjp
from ..layers.convolving.conv_transpose import expect_output_padding
from ..layers.convolving.padding import expect_padding
from ..layers.pooling.windows import make_pool
from ..trees.varying import together
from .remembered import remembered

_made = remembered(lambda make, *args, **how: as_custom_vjp(make(*args, **how)))


def _options(who: str, w: Any, last: str, stride: Any, padding: Any, dilation: Any, groups: Any) -> dict[str, Any]:
    """The options of a convolution with this kernel: hashable, and only ints."""
    if getattr(w, "ndim", 0) not in (3, 4, 5):
        raise ValueError(f"{who}: w must have shape (*kernel, {last}), with a kernel of one to three axes, got {describe(w)}.")
    dims = w.ndim - 2
    (groups,), amounts = expect_positive(who, groups=groups), expect_padding(padding, dims, who)
    stride, dilation = (expect_per_axis(who, n, v, dims) for n, v in (("stride", stride), ("dilation", dilation)))
    return {"stride": stride, "padding": amounts, "dilation": dilation, "groups": groups}


def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | Sequence[int | tuple[int, int]] = "SAME",
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Array:
    """y[p] = b + sum_i w[i] x[p stride + i dilation - padding], channels last: `nnjax.conv` with w and b given.

    x: (..., width, in) and w: (k, in / groups, out), x: (..., height, width, in) and w: (k, l, in / groups, out), or with one
    more axis each.
    Raises as `nnjax.conv` does.

    >>> x, w = jnp.ones((2, 28, 28, 3)), jnp.ones((5, 5, 3, 8))
    >>> nnjax.ops.conv(x, w, padding="VALID").shape
    (2, 24, 24, 8)
    """
    how = _options("conv", w, "in / groups, out", stride, padding, dilation, groups)
    layer = _made(layers.conv, w.shape[-2] * how["groups"], w.shape[-1], tuple(w.shape[:-2]), **how)
    return layer(*together((layers.ConvParams(w, b), x)))


def conv_transpose(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | Sequence[int | tuple[int, int]] = "SAME",
    output_padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Array:
    """y[q] = b + sum of x[p] w[i]ᵀ over p stride + i dilation - padding = q: `nnjax.conv_transpose` with w and b given.

    x: (..., space, in), w: (*kernel, out / groups, in), the kernel of the convolution that it transposes, b: (out,).
    Raises as `nnjax.conv_transpose` does.

    >>> x, w = jnp.ones((2, 14, 14, 8)), jnp.ones((4, 4, 3, 8))
    >>> nnjax.ops.conv_transpose(x, w, stride=2).shape
    (2, 28, 28, 3)
    """
    how = _options("conv_transpose", w, "out / groups, in", stride, padding, dilation, groups)
    more = expect_output_padding(output_padding, how["padding"], how["stride"], how["dilation"])
    sizes = w.shape[-1], w.shape[-2] * how["groups"], tuple(w.shape[:-2])
    layer = _made(layers.conv_transpose, *sizes, output_padding=more, **how)
    return layer(*together((layers.ConvParams(w, b), x)))


def max_pool(
    x: Array,
    window: int | tuple[int, ...],
    stride: int | tuple[int, ...] | None = None,
    padding: str | int | Sequence[int | tuple[int, int]] = "VALID",
    *,
    dilation: int | tuple[int, ...] = 1,
    ceil_mode: bool = False,
) -> Array:
    """y[p] = max over i of x[p stride + i dilation - padding], i in the window: `nnjax.max_pool` of x: (..., space, channels).

    Raises as `nnjax.max_pool` does.

    >>> nnjax.ops.max_pool(jnp.ones((2, 28, 28, 3)), (3, 3), (2, 2), padding=1).shape
    (2, 14, 14, 3)
    """
    pool = make_pool("max_pool", window, stride, padding, dilation=dilation, ceil_mode=ceil_mode)
    how = {"dilation": pool.spacing, "ceil_mode": pool.ceil}
    return _made(layers.max_pool, pool.window, pool.stride, pool.padding, **how)((), x)


def avg_pool(
    x: Array,
    window: int | tuple[int, ...],
    stride: int | tuple[int, ...] | None = None,
    padding: str | int | Sequence[int | tuple[int, int]] = "VALID",
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Array:
    """y[p] = mean over i of x[p stride + i - padding], i in the window: `nnjax.avg_pool` of x.  x: (..., space, channels).

    Raises as `nnjax.avg_pool` does.

    >>> nnjax.ops.avg_pool(jnp.ones((2, 28, 28, 3)), (2, 2)).shape
    (2, 14, 14, 3)
    """
    pool = make_pool(
        "avg_pool", window, stride, padding, ceil_mode=ceil_mode, include=count_include_pad, divisor=divisor
    )  # fmt: skip
    how = {"ceil_mode": pool.ceil, "count_include_pad": pool.include, "divisor": pool.divisor}
    return _made(layers.avg_pool, pool.window, pool.stride, pool.padding, **how)((), x)
