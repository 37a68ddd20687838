"""The transpose of a convolution as a layer of its own, whose backward is that convolution.

    y[q] = sum over the (p, i) with p stride + i dilation - padding = q of  x[p] w[i]ᵀ        q, p: places in y and in x

As a map of x:  ct_x[p] = sum_i ct_y[p stride + i dilation - padding] w[i], the convolution of ct_y with the kernel w itself.
As a map of w:  ct_w[i] = sum over p of  ct_y[p stride + i dilation - padding]ᵀ x[p].
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...errors import (
    describe,
    expect_flag,
    expect_init,
    expect_per_axis,
    expect_positive,
    whole_number,
)
from ...layer import Layer
from ...leaf import Like, leaf
from ...linear import Amounts, broadcast, broadcast_t
from ..conv import LAYOUT, OVER_THE_BATCH, ConvParams, Window, flipped, one_batch
from .padding import expect_groups, expect_kernel, expect_padding


class Spread(NamedTuple):
    """window: of the convolution that this transposes, from y to x; more: places added at the end of each axis of y."""

    window: Window
    more: tuple[int, ...]

    def places(self, space: Sequence[int], kernel: Sequence[int]) -> tuple[int, ...]:
        """The size of each axis of y, which the convolution maps back to that of x."""
        stride, dilation, padding = self.window.stride, self.window.dilation, self.window.padding
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
        if padding == "SAME":
            return tuple(n * s for n, s in zip(space, stride))
        if isinstance(padding, str):
            return tuple(n * s + max(r - s, 0) for n, s, r in zip(space, stride, reach))
        sizes = zip(space, stride, reach, padding, self.more)
        return tuple((n - 1) * s + r - before - after + m for n, s, r, (before, after), m in sizes)

    def read(self, space: Sequence[int], kernel: Sequence[int]) -> Amounts:
        """The zeros around y from which the convolution has as many places as x."""
        return self.window.read(self.places(space, kernel), kernel, space)


def _expect_conv_transpose(params, x, spread) -> None:
    dims = len(spread.more)
    expect_kernel("conv_transpose", ConvParams, params, x, dims, spread.window.groups, transposed=True)
    space, kernel = x.shape[-1 - dims : -1], params.w.shape[:dims]
    if min(*space, *spread.places(space, kernel)) < 1:
        raise ValueError(
            f"conv_transpose: every axis of space must have a place in x and in y, got {describe(x)} with the kernel {kernel} "
            f"and padding {spread.window.padding}; pad less."
        )


def conv_transpose_apply(params: Any, x: Array, *, key: Any = None, spread: Spread) -> Array:
    """y[q] = b + sum of x[p] w[i]ᵀ over p stride + i dilation - padding = q.  x: (..., space, in), y: (..., space', out).

    Raises TypeError if params are not ConvParams or x is not real floating point of w's dtype, ValueError if the channels do
    not match or no place is left.
    """
    _expect_conv_transpose(params, x, spread)
    (stride, _, dilation, groups), w, dims = spread.window, params.w, len(spread.more)
    kernel, space = w.shape[:dims], x.shape[-1 - dims : -1]
    around = [((k - 1) * d - a, (k - 1) * d - b) for k, d, (a, b) in zip(kernel, dilation, spread.read(space, kernel))]
    y = lax.conv_general_dilated(
        one_batch(x, dims), flipped(w, groups), (1,) * dims, around, stride, dilation, LAYOUT[dims], groups
    )
    y = y if params.b is None else y + broadcast(params.b, y.shape)
    return y.reshape(*x.shape[: -1 - dims], *y.shape[1:])


def conv_transpose_fwd(params: Any, x: Array, *, key: Any = None, spread: Spread) -> Any:
    return conv_transpose_apply(params, x, spread=spread), (params, x)


def conv_transpose_bwd(residuals: Any, ct_y: Array, *, spread: Spread) -> Any:
    params, x = residuals
    (stride, _, dilation, groups), dims = spread.window, len(spread.more)
    x, ct = one_batch(x, dims), one_batch(ct_y, dims)
    zeros = spread.read(x.shape[1:-1], params.w.shape[:dims])
    # x -> y is the transpose of a convolution, and the transpose of a transpose is the map itself: convolve ct_y with w.
    ct_x = lax.conv_general_dilated(ct, params.w, stride, zeros, None, dilation, LAYOUT[dims], groups)
    # w -> y, transposed: every ct_y that w[i] was added to, times the x that it multiplied: the kernel's cotangent of that
    # convolution, whose input is ct_y here and whose cotangent is x.
    ct_w = lax.conv_general_dilated(
        ct, x, dilation, zeros, rhs_dilation=stride, dimension_numbers=OVER_THE_BATCH[dims], batch_group_count=groups
    )
    ct_b = None if params.b is None else broadcast_t(ct_y, params.b.shape)  # b is copied to every place: sum over them
    return ConvParams(ct_w, ct_b), ct_x.reshape(residuals[1].shape)


def conv_transpose(
    in_channels: int,
    out_channels: int,
    kernel: int | tuple[int, ...],
    *,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | Sequence[int | tuple[int, int]] = "SAME",
    output_padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    bias: bool = True,
    init: Callable[..., Array] | None = None,
) -> Layer[Array]:
    """y[q] = b + sum of x[p] w[i]ᵀ over all p stride + i dilation - padding = q, channels last: it undoes a stride.

    It is the transpose of `conv(out_channels, in_channels, kernel)` with these options, and its params are ConvParams with
    that layer's kernel, w: (*kernel, out_channels / groups, in_channels). So its own backward is that convolution of ct_y.
    x: (..., space, in_channels), of one, two or three axes of space, as many as the kernel has; b: (out_channels,), or none.

    An axis of n places becomes one of (n - 1) stride + (k - 1) dilation + 1 - before - after + output_padding places, for a
    padding of numbers as in `conv`: that of the convolution, so it takes places away here. output_padding, less than the
    stride or the dilation, chooses among the sizes that the convolution maps to n. With "SAME" there are n stride places, with
    "VALID" n stride + max((k - 1) dilation + 1 - stride, 0).
    Raises ValueError for sizes that are not positive ints, and for groups that do not divide the channels.

    >>> layer = nnjax.conv_transpose(8, 3, (4, 4), stride=2)
    >>> layer.apply(layer.init(jax.random.key(0)), jnp.ones((2, 14, 14, 8))).shape
    (2, 28, 28, 3)
    """
    who = "conv_transpose"
    sizes = expect_positive(who, in_channels=in_channels, out_channels=out_channels, groups=groups)
    in_channels, out_channels, groups = sizes
    kernel = expect_per_axis(who, "kernel", kernel)
    dims = len(kernel)
    stride, dilation = (expect_per_axis(who, n, v, dims) for n, v in (("stride", stride), ("dilation", dilation)))
    expect_groups(who, in_channels, out_channels, groups)
    amounts = expect_padding(padding, dims, who)
    spread = Spread(Window(stride, amounts, dilation, groups), expect_output_padding(output_padding, amounts, stride, dilation))
    init = jax.nn.initializers.glorot_uniform() if init is None else init
    expect_init(who, init)
    expect_flag(who, bias=bias)
    shape = (*kernel, out_channels // groups, in_channels)

    def init_params(key):
        w = init(key, shape, jnp.float32)
        return ConvParams(w, jnp.zeros((out_channels,), w.dtype) if bias else None)

    def output(residuals):
        params, x = residuals
        places = spread.places(x.shape[-1 - dims : -1], kernel)
        return Like((*x.shape[: -1 - dims], *places, params.w.shape[-2] * groups), x.dtype)

    fs = (conv_transpose_apply, conv_transpose_fwd, conv_transpose_bwd)
    apply, fwd, bwd = (cast(Callable[..., Any], partial(f, spread=spread)) for f in fs)
    return leaf(f"{who}({in_channels}, {out_channels}, {kernel})", init_params, apply, fwd, bwd, output)


def expect_output_padding(output_padding: Any, padding: str | Amounts, stride: Any, dilation: Any) -> tuple[int, ...]:
    """One int for each axis. Raises ValueError for any that does not go with the padding, the stride and the dilation."""
    several = isinstance(output_padding, (tuple, list))
    more = tuple(map(whole_number, output_padding if several else (output_padding,) * len(stride)))
    found = tuple(m for m in more if m is not None and m >= 0)
    if len(found) != len(stride) or any(m >= max(s, d) for m, s, d in zip(found, stride, dilation)):
        raise ValueError(
            "conv_transpose: output_padding must be an int >= 0, or one for each axis of space, less than the stride "
            f"{stride} or the dilation {dilation}, got {output_padding!r}; with a larger one the last places would be empty."
        )
    if isinstance(padding, str) and any(found):
        raise ValueError(
            f'conv_transpose: output_padding goes with a padding of numbers, got {output_padding!r} with "{padding}", which '
            "says the size of y by itself; leave it out, or pass numbers."
        )
    return found
