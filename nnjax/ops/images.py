"""Convolutions and pools inside anyone's `jax.grad`."""

from collections.abc import Sequence
from functools import lru_cache

from jax import Array

from .. import layers
from ..errors import describe, expect_per_axis, expect_positive
from ..layer import as_custom_vjp
from ..layers.conv import expect_padding
from ..trees.varying import together

_conv = lru_cache(lambda *args, **how: as_custom_vjp(layers.conv(*args, **how)))
_max_pool = lru_cache(lambda *args: as_custom_vjp(layers.max_pool(*args)))


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

    x: (..., width, in) and w: (k, in / groups, out), or x: (..., height, width, in) and w: (k, l, in / groups, out).
    Raises as `nnjax.conv` does.

    >>> x, w = jnp.ones((2, 28, 28, 3)), jnp.ones((5, 5, 3, 8))
    >>> nnjax.ops.conv(x, w, padding="VALID").shape
    (2, 24, 24, 8)
    """
    if getattr(w, "ndim", 0) not in (3, 4):
        raise ValueError(f"conv: w must have shape (k, in / groups, out) or (k, l, in / groups, out), got {describe(w)}.")
    dims = w.ndim - 2
    (groups,), amounts = expect_positive("conv", groups=groups), expect_padding(padding, dims)
    stride, dilation = (expect_per_axis("conv", n, v, dims) for n, v in (("stride", stride), ("dilation", dilation)))
    how = {"stride": stride, "padding": amounts, "dilation": dilation, "groups": groups}  # hashable, and only ints
    layer = _conv(w.shape[-2] * groups, w.shape[-1], tuple(w.shape[:-2]), **how)
    return layer(*together((layers.ConvParams(w, b), x)))


def max_pool(x: Array, window: int | tuple[int, ...], stride: int | tuple[int, ...] | None = None) -> Array:
    """y[p] = max over i of x[p stride + i], i in the window: `nnjax.max_pool` of x.  x: (..., space, channels).

    Raises as `nnjax.max_pool` does.

    >>> nnjax.ops.max_pool(jnp.ones((2, 28, 28, 3)), (2, 2)).shape
    (2, 14, 14, 3)
    """
    window = expect_per_axis("max_pool", "window", window)
    stride = window if stride is None else expect_per_axis("max_pool", "stride", stride, len(window))
    return _max_pool(window, stride)((), x)
