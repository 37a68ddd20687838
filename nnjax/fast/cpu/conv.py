"""The two transposes of a convolution of images, each in spellings that are fast for different shapes.

    y[n, p] = sum_i x[n, p stride + i dilation - before] w[i]        p, i: places in the plane

As a map of x:  ct_x[n, q] = sum over the (p, i) with p stride + i dilation - before = q of  ct_y[n, p] w[i]ᵀ.
As a map of w:  ct_w[i] = sum over n, p of  x[n, p stride + i dilation - before]ᵀ ct_y[n, p].

COLUMNS      conv(x, w) = windows(x) @ w, a matrix product; transposed, windows_t(ct_y @ w.T) and windows(x).T @ ct_y.
CONVOLUTION  both sums are convolutions again: of ct_y with the kernel flipped, and of x with ct_y as the kernel.
TAPS         one term for each place i of the kernel, for kernels that mix few channels.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from ...feedback import transpose
from ...linear import Amounts, broadcast, crop, fold, pad, shift, wide, windows, windows_t

LAYOUT, LINE = ("NHWC", "HWIO", "NHWC"), ("NWC", "WIO", "NWC")
COLUMNS, CONVOLUTION, TAPS = "columns", "convolution", "taps"
# Numbers formed at a time, from one chunk of the batch, so that they stay in cache (bench cases `lenet` and `conv 5x5`).
CHUNK = 800 << 10


class Plane(NamedTuple):
    """How the kernel is applied to the image: stride, zeros (before, after) around, dilation, groups of channels."""

    stride: tuple[int, ...]
    amounts: Amounts
    dilation: tuple[int, ...]
    groups: int


def in_the_plane(w: Array, x: Array, window: Any) -> tuple[Array, Array, Plane]:
    """(w, x, plane) in two dimensions and with one batch axis: one dimension is a plane of height 1."""
    dims = len(window.stride)
    amounts = window.amounts(x.shape[-1 - dims : -1], w.shape[:dims])
    one = (1,) * (2 - dims)
    plane = Plane((*one, *window.stride), (*((0, 0),) * (2 - dims), *amounts), (*one, *window.dilation), window.groups)
    x = x.reshape(math.prod(x.shape[: -1 - dims]), *one, *x.shape[-1 - dims :])
    return w.reshape(*one, *w.shape), x, plane


def transposes(w: Array, x: Array, ct_y: Array, window: Any, feedback: Callable[..., Any]) -> tuple[Array, Array]:
    """(ct_w, ct_x) of y = conv(x, w).  x: (..., space, in), w: (*kernel, in / groups, out), ct_y: (..., space', out)."""
    dims = len(window.stride)
    w2, x2, plane = in_the_plane(w, x, window)
    ct2 = ct_y.reshape(x2.shape[0], *(1,) * (2 - dims), *ct_y.shape[-1 - dims :])
    back = w2 if feedback is transpose else feedback(fold(w)).T.reshape(w2.shape)
    ct_x = input_cotangent(back, ct2, x2.shape, plane)  # the transpose of x -> conv(x, w): each window returns what it took
    ct_w = weight_cotangent(x2, ct2, w2.shape, plane)  # that of w -> conv(x, w): what each window saw, weighed by its ct_y
    return ct_w.reshape(w.shape), ct_x.reshape(x.shape)


def spelling(w_shape: Any, x_shape: Any, ct_shape: Any, plane: Plane) -> tuple[str, str]:
    """How to spell ct_x and ct_w, by shape, from the bench cases `conv` and `lenet`."""
    *kernel, n_in, _ = w_shape
    if plane.groups > 1:
        return (TAPS if n_in == 1 else CONVOLUTION), TAPS
    if plane.stride != (1, 1):
        return CONVOLUTION, CONVOLUTION
    if kernel == [1, 1]:
        return COLUMNS, COLUMNS
    wasted = math.prod(x_shape[1:3]) / math.prod(ct_shape[1:3])  # CONVOLUTION of ct_y computes this many times too much
    for_x = n_in < 16 or wasted >= 1.5
    for_w = n_in == 1 or (n_in >= 16 and wasted >= 1.5 and math.prod(kernel) >= 25)
    return (COLUMNS if for_x else CONVOLUTION), (COLUMNS if for_w else CONVOLUTION)


def input_cotangent(w: Array, ct_y: Array, x_shape: Any, plane: Plane) -> Array:
    """ct_x of this shape.  w: (kh, kw, in / groups, out), ct_y: (n, h', w', out)."""
    if 0 in (x_shape[0], *ct_y.shape):
        return jnp.zeros(x_shape, ct_y.dtype)
    how = spelling(w.shape, x_shape, ct_y.shape, plane)[0]
    if how == COLUMNS:
        return _columns_for_x(w, ct_y, plane)
    # ct_y spread out to the start of each window, and padded (or cropped) so that all places q + i dilation are inside.
    before = [(k - 1) * d - a for k, d, (a, _) in zip(w.shape, plane.dilation, plane.amounts)]
    after = [q + a - (p - 1) * s - 1 for q, p, s, (a, _) in zip(x_shape[1:3], ct_y.shape[1:3], plane.stride, plane.amounts)]
    if how == TAPS:
        return _taps_for_x(w, ct_y, x_shape, plane, before, after)
    around = list(zip(before, after))
    return _convolve(ct_y, _flipped(w, plane.groups), (1, 1), around, plane.stride, plane.dilation, plane.groups)


def weight_cotangent(x: Array, ct_y: Array, w_shape: Any, plane: Plane) -> Array:
    """ct_w of this shape.  x: (n, h, w, in), ct_y: (n, h', w', out)."""
    if 0 in (*x.shape, *ct_y.shape):
        return jnp.zeros(w_shape, x.dtype)
    how = spelling(w_shape, x.shape, ct_y.shape, plane)[1]
    if how == COLUMNS:
        return _columns_for_w(x, ct_y, w_shape, plane)
    if how == TAPS:
        return _taps_for_w(x, ct_y, w_shape, plane)
    # It sums over n and p as a convolution does over channels and kernel: permute x and ct_y so that XLA sees them as these.
    # If XLA permutes them itself, the convolution is a plain loop inside `lax.scan`.
    after = [
        (p - 1) * s + (k - 1) * d + 1 - q - a
        for q, p, k, s, d, (a, _) in zip(x.shape[1:3], ct_y.shape[1:3], w_shape, plane.stride, plane.dilation, plane.amounts)
    ]
    around = [(a, b) for (a, _), b in zip(plane.amounts, after)]
    ct_w = _convolve(x.transpose(3, 1, 2, 0), ct_y.transpose(1, 2, 0, 3), plane.dilation, around, (1, 1), plane.stride)
    return ct_w.transpose(1, 2, 0, 3)


def _convolve(x, w, stride, around, spread, dilation, groups=1):
    """XLA's convolution, in one dimension where the plane has height 1: in two it takes 1.5 times as long there.

    Zeros above or below give x more rows, or w more positions, so they need two dimensions.
    """
    if x.shape[1] > 1 or w.shape[0] > 1 or tuple(around[0]) != (0, 0):
        return lax.conv_general_dilated(
            x, w, stride, around, spread, dilation, dimension_numbers=LAYOUT, feature_group_count=groups
        )
    y = lax.conv_general_dilated(
        x[:, 0], w[0], stride[1:], around[1:], spread[1:], dilation[1:], dimension_numbers=LINE, feature_group_count=groups
    )
    return y[:, None]


def _flipped(w, groups):
    """The kernel turned around in the plane, with in and out exchanged within each group."""
    kh, kw, n_in, n_out = w.shape
    w = jnp.flip(w, (0, 1)).reshape(kh, kw, n_in, groups, n_out // groups)
    return w.transpose(0, 1, 4, 3, 2).reshape(kh, kw, n_out // groups, groups * n_in)


def _columns_for_x(w, ct_y, plane):
    kh, kw, n_in, n_out = w.shape
    flat = w.transpose(1, 0, 2, 3).reshape(-1, n_out)
    dh, dw = plane.dilation

    def of_chunk(ct):
        n, *space, _ = ct.shape
        # forward, windows @ w; back, w @ ctᵀ, then every window returns its entries to the places they were copied from
        seen = jnp.matmul(flat, _last(ct).T, preferred_element_type=wide(ct)).reshape(kw, kh, n_in, space[0], space[1] * n)
        ct_x = windows_t(windows_t(seen, 3, dw * n), 1, dh)
        return crop(_first(ct_x, n), _around(plane)).astype(ct.dtype)

    chunks = _chunks(ct_y, math.prod(ct_y.shape[1:3]) * flat.shape[0])
    if chunks.shape[0] == 1:
        return of_chunk(ct_y)
    ct_x = lax.scan(lambda _, ct: (None, of_chunk(ct)), None, chunks)[1]
    return ct_x.reshape(ct_y.shape[0], *ct_x.shape[2:])


def _columns_for_w(x, ct_y, w_shape, plane):
    kh, kw, n_in, n_out = w_shape
    dh, dw = plane.dilation

    def of_chunk(x, ct):
        n = x.shape[0]
        # forward, windows @ w; back, windowsᵀ @ ct, and windowsᵀ is formed here: places last
        x = pad(x, _around(plane))
        x = x.transpose(3, 1, 2, 0).reshape(n_in, x.shape[1], x.shape[2] * n)
        seen = windows(windows(x, 1, kh, dh), 3, kw, dw * n)
        return jnp.matmul(seen.reshape(kw * kh * n_in, -1), _last(ct), preferred_element_type=wide(ct))

    ct_w = _summed(of_chunk, x, ct_y, math.prod(ct_y.shape[1:3]) * kh * kw * n_in)
    return ct_w.reshape(kw, kh, n_in, n_out).swapaxes(0, 1).astype(x.dtype)


def _last(ct):
    """(n, h, w, channels) -> (h w n, channels): the batch is the last place, so that windows shift long runs of numbers."""
    return fold(ct.transpose(1, 2, 0, 3))


def _first(x, n):
    """(channels, h, w n) -> (n, h, w, channels)."""
    return x.reshape(*x.shape[:2], x.shape[2] // n, n).transpose(3, 1, 2, 0)


def depthwise(w: Array, x: Array, window: Any) -> Array:
    """conv(x, w) with one input channel in each group, a term for each tap.  x: (..., space, in), w: (*kernel, 1, out)."""
    dims, lead = len(window.stride), x.shape[: -1 - len(window.stride)]
    w, x2, plane = in_the_plane(w, x, window)
    x2 = pad(x2, _around(plane))
    space = [(q - (k - 1) * d - 1) // s + 1 for q, k, d, s in zip(x2.shape[1:3], w.shape, plane.dilation, plane.stride)]
    y = _taps(_copied(x2, w.shape[3]), w, space, plane).astype(x.dtype)
    return y.reshape(*lead, *y.shape[3 - dims :])


def _copied(x, n_out):
    """Each channel as often as it has kernels; the transpose is the sum over its copies (`_copied_t`)."""
    return x if x.shape[3] == n_out else jnp.repeat(x, n_out // x.shape[3], 3)


def _copied_t(ct, n_in):
    return ct if ct.shape[3] == n_in else ct.reshape(*ct.shape[:3], n_in, ct.shape[3] // n_in).sum(-1)


def _seen(x, i, j, space, plane):
    """The padded x as the tap (i, j) of the kernel sees it from each place."""
    x = shift(x, 1, i * plane.dilation[0], space[0], plane.stride[0])
    return shift(x, 2, j * plane.dilation[1], space[1], plane.stride[1])


def _taps(x, w, space, plane):
    """sum_ij x seen from (i, j), times w[i, j].  w: (kh, kw, 1, channels), y: (n, *space, channels), in a wide dtype."""
    y = jnp.zeros((x.shape[0], *space, x.shape[3]), wide(x))
    for i in range(w.shape[0]):
        for j in range(w.shape[1]):
            y = y + _seen(x, i, j, space, plane).astype(y.dtype) * broadcast(w[i, j, 0].astype(y.dtype), y.shape)
    return y


def _taps_for_x(w, ct_y, x_shape, plane, before, after):
    inner = [(a, b, s - 1) for a, b, s in zip(before, after, plane.stride)]
    spread = lax.pad(ct_y, jnp.zeros((), ct_y.dtype), [(0, 0, 0), *inner, (0, 0, 0)])
    ct_x = _taps(spread, jnp.flip(w, (0, 1)), x_shape[1:3], plane._replace(stride=(1, 1)))
    return _copied_t(ct_x, x_shape[3]).astype(ct_y.dtype)


def _taps_for_w(x, ct_y, w_shape, plane):
    kh, kw, n_in, n_out = w_shape
    groups = plane.groups

    def of_chunk(x, ct):
        x, ct = pad(x, _around(plane)).astype(wide(x)), ct.astype(wide(ct))
        if n_in == 1:
            x = _copied(x, n_out)
        terms = []
        for i in range(kh):
            for j in range(kw):
                seen = _seen(x, i, j, ct.shape[1:3], plane)
                if n_in == 1:
                    terms.append((seen * ct).sum((0, 1, 2)))
                else:
                    split = [z.reshape(*z.shape[:3], groups, z.shape[3] // groups) for z in (seen, ct)]
                    terms.append(jnp.einsum("npqgi,npqgo->igo", *split))
        return jnp.stack(terms)

    return _summed(of_chunk, x, ct_y, x[0].size).reshape(w_shape).astype(x.dtype)


def _summed(of_chunk, x, ct_y, numbers):
    """of_chunk of each chunk of the batch, added up."""
    xs, cts = _chunks(x, numbers), _chunks(ct_y, numbers)
    if xs.shape[0] == 1:
        return of_chunk(x, ct_y)
    zero = jnp.zeros_like(of_chunk(xs[0], cts[0]))
    return lax.scan(lambda total, pair: (total + of_chunk(*pair), None), zero, (xs, cts))[0]


def _chunks(x, numbers: int):
    """The batch in equal chunks, with as many examples (of this many numbers each) as the limit allows; at least 2, or 1."""
    n = x.shape[0]
    size = max(b for b in range(1, n + 1) if n % b == 0 and (b <= 2 or b * numbers <= CHUNK))
    return x.reshape(n // size, size, *x.shape[1:])


def _around(plane):
    return ((0, 0), *plane.amounts, (0, 0))
