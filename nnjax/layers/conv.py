"""Convolution in one, two and three dimensions, and its two transposes written out.

    y[p] = sum_i w[i] x[p stride + i dilation - padding]        p, i: places in space and in the kernel

As a map of x:  ct_x[q] = sum over the (p, i) with p stride + i dilation - padding = q of  ct_y[p] w[i]ᵀ.
As a map of w:  ct_w[i] = sum over p of  x[p stride + i dilation - padding]ᵀ ct_y[p].

Both sums are convolutions again: of ct_y with the flipped kernel, and of x with ct_y as the kernel.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..errors import (
    describe,
    expect_flag,
    expect_init,
    expect_per_axis,
    expect_positive,
)
from ..fast.choose import by_platform
from ..fast.cpu import conv as cpu
from ..feedback import expect_operator, transpose
from ..layer import Layer
from ..leaf import Like, leaf
from ..linear import Amounts, broadcast, broadcast_t, fold
from .convolving.padding import expect_groups, expect_kernel, expect_padding
from .mirrored import carried_by

LAYOUT = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}
OVER_THE_BATCH = {1: ("CWN", "IWO", "WNC"), 2: ("CHWN", "IHWO", "HWNC"), 3: ("CDHWN", "IDHWO", "DHWNC")}


class ConvParams(NamedTuple):
    """w: (*kernel, in_channels / groups, out_channels), b: (out_channels,) or None. See `conv`."""

    w: Array
    b: Array | None

    WEIGHTS = ("w",)


class Window(NamedTuple):
    """How a kernel is applied to its input. padding: "SAME", "VALID", or a pair (before, after) for each axis of space."""

    stride: tuple[int, ...]
    padding: str | Amounts
    dilation: tuple[int, ...]
    groups: int

    def amounts(self, space: Sequence[int], kernel: Sequence[int]) -> Amounts:
        """The zeros before and after each axis of space."""
        if not isinstance(self.padding, str):
            return self.padding
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, self.dilation)]
        return tuple((a, b) for a, b in lax.padtype_to_pads(space, reach, self.stride, self.padding))

    def read(self, space: Sequence[int], kernel: Sequence[int], places: Sequence[int]) -> Amounts:
        """The same, but after an axis only as far as the last window reaches: negative if it does not reach the end."""
        before = [a for a, _ in self.amounts(space, kernel)]
        sizes = zip(before, space, kernel, places, self.stride, self.dilation)
        return tuple((a, (p - 1) * s + (k - 1) * d + 1 - n - a) for a, n, k, p, s, d in sizes)


def _expect_conv(params, x, window) -> None:
    dims = len(window.stride)
    expect_kernel("conv", ConvParams, params, x, dims, window.groups)
    space, kernel = x.shape[-1 - dims : -1], params.w.shape[:dims]
    for n, k, d, (before, after) in zip(space, kernel, window.dilation, window.amounts(space, kernel)):
        if n < 1 or n + before + after < (k - 1) * d + 1:
            raise ValueError(
                f"conv: the kernel {kernel} with dilation {window.dilation} must fit into the padded input, got "
                f"{describe(x)} with padding {window.padding}; use a smaller kernel, or pad more."
            )


def _biased(params, y):
    return y if params.b is None else y + broadcast(params.b, y.shape)


def conv_apply(params: Any, x: Array, *, key: Any = None, window: Window) -> Array:
    """y[p] = b + sum_i w[i] x[p stride + i dilation - padding].  x: (..., space, in), y: (..., space', out).

    Raises TypeError if params are not ConvParams or x is not real floating point of w's dtype, ValueError if the channels do
    not match or the kernel does not fit.
    """
    _expect_conv(params, x, window)
    dims = len(window.stride)
    y = lax.conv_general_dilated(
        one_batch(x, dims), params.w, window.stride, window.amounts(x.shape[-1 - dims : -1], params.w.shape[:dims]),
        rhs_dilation=window.dilation, dimension_numbers=LAYOUT[dims], feature_group_count=window.groups,
    )  # fmt: skip
    return _biased(params, y.reshape(*x.shape[: -1 - dims], *y.shape[1:]))


def conv_fwd(params: Any, x: Array, *, key: Any = None, window: Window) -> Any:
    return conv_apply(params, x, window=window), (params, x)


def conv_bwd(residuals: Any, ct_y: Array, *, window: Window, feedback: Callable[..., Any] = transpose) -> Any:
    params, x = residuals
    w, dims = params.w, len(window.stride)
    x, ct = one_batch(x, dims), one_batch(ct_y, dims)
    zeros = window.read(x.shape[1:-1], w.shape[:dims], ct.shape[1:-1])
    reach = [(k - 1) * d for k, d in zip(w.shape, window.dilation)]
    # conv(x, w) = windows(x) @ fold(w), and feedback(fold(w)) replaces its transpose: a kernel again, w itself by default.
    back = w if feedback is transpose else feedback(fold(w)).T.reshape(w.shape)
    # x -> conv(x, w), transposed: where w[i] x went forward, wᵀ[i] ct_y comes back: ct_y convolved with the flipped kernel.
    ct_x = lax.conv_general_dilated(
        ct, flipped(back, window.groups), (1,) * dims, [(r - a, r - b) for r, (a, b) in zip(reach, zeros)],
        window.stride, window.dilation, LAYOUT[dims], window.groups,
    )  # fmt: skip
    # w -> conv(x, w), transposed: every x that w[i] multiplied, times its ct_y: x correlated with ct_y over the batch.
    ct_w = lax.conv_general_dilated(
        x, ct, window.dilation, zeros, rhs_dilation=window.stride,
        dimension_numbers=OVER_THE_BATCH[dims], batch_group_count=window.groups,
    )  # fmt: skip
    ct_b = None if params.b is None else broadcast_t(ct_y, params.b.shape)  # b is copied to every place: sum over them
    return ConvParams(ct_w, ct_b), ct_x.reshape(residuals[1].shape)


def flipped(w: Array, groups: int) -> Array:
    """The kernel turned around in space, with in and out exchanged within each group.  w: (*kernel, in / groups, out)."""
    *kernel, n_in, n_out = w.shape
    w = jnp.swapaxes(w.reshape(*kernel, n_in, groups, n_out // groups), -3, -1)
    return jnp.flip(w.reshape(*kernel, n_out // groups, groups * n_in), range(len(kernel)))


def one_batch(x: Array, dims: int) -> Array:
    """x: (..., space, channels) with its leading axes merged."""
    return x.reshape(math.prod(x.shape[: -1 - dims]), *x.shape[-1 - dims :])


def fast_fwd(params: Any, x: Array, *, key: Any = None, window: Window) -> Any:
    """`conv_fwd`, spelled for the platform."""
    _expect_conv(params, x, window)
    if window.groups == 1 or params.w.shape[-2] > 1 or len(window.stride) > 2:
        return conv_fwd(params, x, window=window)
    return by_platform(params, x, plain=conv_apply, cpu=_depthwise, how={"window": window}), (params, x)


def _depthwise(params, x, *, window):
    return _biased(params, cpu.depthwise(params.w, x, window))


def fast_bwd(residuals: Any, ct_y: Array, *, window: Window, feedback: Callable[..., Any] = transpose) -> Any:
    """`conv_bwd`, spelled for the platform."""
    if len(window.stride) > 2:
        return conv_bwd(residuals, ct_y, window=window, feedback=feedback)
    return by_platform(residuals, ct_y, plain=conv_bwd, cpu=_cpu_bwd, how={"window": window, "feedback": feedback})


def _cpu_bwd(residuals, ct_y, *, window, feedback):
    params, x = residuals
    ct_w, ct_x = cpu.transposes(params.w, x, ct_y, window, feedback)
    return ConvParams(ct_w, None if params.b is None else broadcast_t(ct_y, params.b.shape)), ct_x


def _output(residuals, *, window):
    params, x = residuals
    dims, w = len(window.stride), params.w
    space, kernel = x.shape[-1 - dims : -1], w.shape[:dims]
    sizes = zip(space, kernel, window.stride, window.dilation, window.amounts(space, kernel))
    places = ((n + sum(pad) - (k - 1) * d - 1) // s + 1 for n, k, s, d, pad in sizes)
    return Like((*x.shape[: -1 - dims], *places, w.shape[-1]), x.dtype)


def conv(
    in_channels: int,
    out_channels: int,
    kernel: int | tuple[int, ...],
    *,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | Sequence[int | tuple[int, int]] = "SAME",
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    bias: bool = True,
    init: Callable[..., Array] | None = None,
    feedback: Callable[[Array], Array] = transpose,
) -> Layer[Array]:
    """y[p] = b + sum_i w[i] x[p stride + i dilation - padding], channels last.

    A kernel of an int or (k,) means one dimension, x: (..., width, in); a tuple of two means images, x: (..., height, width,
    in), a tuple of three volumes, x: (..., depth, height, width, in). stride and dilation are one number for all axes of
    space, or one for each.
    padding: "SAME" (as many places as x has, over the stride, rounded up), "VALID" (no zeros), a number of zeros at both ends
    of every axis of space, or for each axis a number or a pair (before, after). With groups, output channels of group g see
    only the input channels of group g; groups = in_channels is the depthwise convolution. w: (*kernel, in_channels / groups,
    out_channels), by default from Glorot's uniform distribution; b: (out_channels,), initially zero, or none (`bias=False`).
    feedback: as in `dense`, for the matrix with one row for each entry of a window.
    Raises ValueError for sizes that are not positive ints, and for groups that do not divide the channels.

    >>> layer = nnjax.conv(3, 8, (5, 5), stride=2)
    >>> layer.apply(layer.init(jax.random.key(0)), jnp.ones((2, 28, 28, 3))).shape
    (2, 14, 14, 8)
    """
    sizes = expect_positive("conv", in_channels=in_channels, out_channels=out_channels, groups=groups)
    in_channels, out_channels, groups = sizes
    kernel = expect_per_axis("conv", "kernel", kernel)
    dims = len(kernel)
    stride, dilation = (expect_per_axis("conv", n, v, dims) for n, v in (("stride", stride), ("dilation", dilation)))
    expect_groups("conv", in_channels, out_channels, groups)
    window = Window(stride, expect_padding(padding, dims), dilation, groups)
    init = jax.nn.initializers.glorot_uniform() if init is None else init
    expect_init("conv", init)
    expect_flag("conv", bias=bias)
    expect_operator("conv", feedback)
    shape = (*kernel, in_channels // groups, out_channels)

    def init_params(key):
        w = init(key, shape, jnp.float32)
        return ConvParams(w, jnp.zeros((out_channels,), w.dtype) if bias else None)

    every = (conv_apply, conv_fwd, conv_bwd, fast_fwd, fast_bwd, _output)
    apply, fwd, bwd, *fast, output = (partial(f, window=window) for f in every)
    layer = leaf(f"conv({in_channels}, {out_channels}, {kernel})", init_params, apply, fwd, bwd, output, fast=fast)
    return layer if feedback is transpose else carried_by(feedback, layer, bwd, output, fast=fast)
