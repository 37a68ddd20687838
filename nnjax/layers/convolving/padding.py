"""What a convolution and its transpose are given: zeros around the input, as people write them, and a kernel that fits it."""

import math
from typing import Any, cast

from ...errors import (
    MOST,
    describe,
    expect_float,
    expect_params,
    expect_same_dtype,
    expect_shape,
    is_array,
    whole_number,
)
from ...linear import Amounts

SPACE = {1: "width", 2: "height, width", 3: "depth, height, width"}  # by how many axes there are


def expect_padding(padding: Any, dims: int, who: str = "conv") -> str | Amounts:
    """ "SAME" or "VALID", or a pair (before, after) for each axis: a number means both ends of every axis, or of its own.

    Raises ValueError for anything but these two words, in capitals or not, whole numbers >= 0 and pairs of them.
    """
    if isinstance(padding, str) and padding in ("SAME", "VALID", "same", "valid"):
        return padding.upper()
    axes = tuple(padding) if _several(padding) else (padding,) * dims
    amounts = tuple((whole_number(a), whole_number(b)) for a, b in (p if _pair(p) else (p, p) for p in axes))
    if len(amounts) != dims or any(n is None or not 0 <= n <= MOST for pair in amounts for n in pair):
        raise ValueError(
            f'{who}: padding must be "SAME", "VALID", an int >= 0, or for each of the {dims} axes of space an int or a pair of '
            f"ints (before, after), got {padding!r}; pass e.g. {((1, 1),) * dims}."
        )
    return cast(Amounts, amounts)


def expect_groups(who: str, in_channels: int, out_channels: int, groups: int) -> None:
    """Raise ValueError unless groups divides both."""
    if in_channels % groups or out_channels % groups:
        raise ValueError(
            f"{who}: groups must divide in_channels and out_channels, got groups={groups}, in_channels={in_channels}, "
            f"out_channels={out_channels}; use a common divisor, such as {math.gcd(in_channels, out_channels)}."
        )


def expect_kernel(who: str, kind: type, params: Any, x: Any, dims: int, groups: int, *, transposed: bool = False) -> None:
    """Raise TypeError or ValueError unless params.w is a kernel over `dims` axes of space, with a bias that fits it, and x fits
    both. transposed: w is stored as the kernel of the convolution from y to x.
    """
    expect_params(who, params, kind)
    w, b = params.w, params.b
    expect_float(who, "w", w)
    expect_float(who, "x", x)
    last = "out_channels / groups, in_channels" if transposed else "in_channels / groups, out_channels"
    if w.ndim != dims + 2 or w.shape[-1] % groups or 0 in w.shape[:dims]:
        raise ValueError(f"{who}: w must have shape ({'k, ' * dims}{last}), got {describe(w)}; make it with layer.init(key).")
    shared, whole = w.shape[-2] * groups, w.shape[-1]
    n_in, n_out = (whole, shared) if transposed else (shared, whole)
    if b is not None:
        expect_shape(who, "b", b, (n_out,))
        expect_same_dtype(who, "b", b, "w", w)
    if x.ndim < dims + 1 or x.shape[-1] != n_in:
        raise ValueError(
            f"{who}: x must have shape (..., {SPACE[dims]}, {n_in}), channels last, got {describe(x)}; transpose it, or make "
            "the layer with as many input channels as x has."
        )
    expect_same_dtype(who, "x", x, "w", w)


def _pair(x: Any) -> bool:
    return _several(x) and len(x) == 2


def _several(x: Any) -> bool:
    return isinstance(x, (tuple, list)) or (is_array(x) and x.ndim > 0)
