"""Where the windows of a pooling lie: with padding, dilation, and a last window that is only partly filled."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ...errors import describe, expect_flag, expect_float, expect_params, expect_per_axis, whole_number
from ...linear import Amounts, broadcast, crop
from ..convolving.padding import SPACE, expect_padding


class Pool(NamedTuple):
    """padding: "SAME", "VALID" or a pair for each axis; ceil: whether a last window may reach beyond the padding.

    include: whether a mean counts the padding as entries; divisor: what to divide sums by, in place of a count.
    """

    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | Amounts = "VALID"
    dilation: tuple[int, ...] | None = None  # of 1 everywhere if None
    ceil: bool = False
    include: bool = True
    divisor: int | None = None

    @property
    def spacing(self) -> tuple[int, ...]:
        """The distance between two entries of a window."""
        return self.dilation or (1,) * len(self.window)

    @property
    def reach(self) -> tuple[int, ...]:
        """How far a window reaches along each axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.window, self.spacing))

    def space(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The axes of space of an array (..., space, channels)."""
        return tuple(shape[-1 - len(self.window) : -1])

    def given(self, space: Sequence[int]) -> Amounts:
        """The padding that was asked for, in numbers."""
        if not isinstance(self.padding, str):
            return self.padding
        return tuple((a, b) for a, b in lax.padtype_to_pads(space, self.reach, self.stride, self.padding))

    def places(self, space: Sequence[int]) -> tuple[int, ...]:
        """How many windows there are along each axis. With ceil, all that begin before the padding at the end does."""
        found = []
        for n, r, s, (a, b) in zip(space, self.reach, self.stride, self.given(space)):
            left = n + a + b - r
            p = (-(-left // s) if self.ceil else left // s) + 1
            found.append(p - 1 if self.ceil and (p - 1) * s >= n + a else p)
        return tuple(found)

    def around(self, space: Sequence[int]) -> Amounts:
        """What lies before each axis, and after it as far as the last window reaches."""
        sizes = zip(space, self.places(space), self.stride, self.reach, self.given(space))
        return tuple((a, max((p - 1) * s + r - n - a, 0)) for n, p, s, r, (a, _) in sizes)

    def padded(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of x with what is around it."""
        return tuple(n + a + b for n, (a, b) in zip(shape, self._amounts(shape)))

    def first(self, space: Sequence[int]) -> list[np.ndarray] | None:
        """For each axis and place, the first entry of the window that is not padding; None where there is none of it."""
        if not any(map(any, self.around(space))):
            return None
        found = []
        for n, p, k, s, d, (a, _) in zip(space, self.places(space), self.window, self.stride, self.spacing, self.around(space)):
            at = np.arange(p)[:, None] * s + np.arange(k) * d - a
            found.append(((at >= 0) & (at < n)).argmax(1))
        return found

    def number(self, space: Sequence[int]) -> np.ndarray | None:
        """The same as the number of an entry in row-major order, (*places, 1)."""
        each = self.first(space)
        if each is None:
            return None
        grid = np.meshgrid(*each, indexing="ij")
        return np.ravel_multi_index([g.ravel() for g in grid], self.window).reshape(*grid[0].shape, 1)

    def surround(self, x: Array, value: float) -> Array:
        """x with this value around it, as far as windows reach.  x: (..., space, channels)."""
        amounts = self._amounts(x.shape)
        return lax.pad(x, jnp.asarray(value, x.dtype), [(a, b, 0) for a, b in amounts]) if any(map(any, amounts)) else x

    def surround_t(self, ct_y: Array, shape: Sequence[int]) -> Array:
        """ct_x of this shape: what lies around was no entry of x, and its cotangent is cut off."""
        amounts = self._amounts(shape)
        return crop(ct_y, amounts) if any(map(any, amounts)) else ct_y

    def _amounts(self, shape: Sequence[int]) -> Amounts:
        space = self.space(shape)
        return (*((0, 0),) * (len(shape) - 1 - len(space)), *self.around(space), (0, 0))

    def divided(self, x: Array, space: Sequence[int]) -> Array:
        """x: (..., *places, channels), divided by the number of entries of each window: a diagonal map, its own transpose."""
        if self.divisor is not None:
            return x / self.divisor
        counts = np.ones(())
        for n, p, s, k, (a, b) in zip(space, self.places(space), self.stride, self.window, self.given(space)):
            start = np.arange(p) * s - a
            first, last = (start, n + b) if self.include else (np.maximum(start, 0), n)
            counts = counts[..., None] * (np.minimum(start + k, last) - first)
        if (counts == math.prod(self.window)).all():
            return x / math.prod(self.window)
        return x / broadcast(jnp.asarray(counts[..., None], x.dtype), x.shape)


def make_pool(
    who: str, window: Any, stride: Any, padding: Any, *, dilation: Any = 1, ceil_mode: Any = False, include: Any = True,
    divisor: Any = None,
) -> Pool:  # fmt: skip
    """The Pool of these arguments. Raises ValueError or TypeError, which name the argument, for those that do not fit."""
    window = expect_per_axis(who, "window", window)
    dims = len(window)
    stride = window if stride is None else expect_per_axis(who, "stride", stride, dims)
    dilation = expect_per_axis(who, "dilation", dilation, dims)
    amounts = expect_padding(padding, dims, who)
    amounts = amounts if isinstance(amounts, str) or any(map(any, amounts)) else "VALID"
    expect_flag(who, ceil_mode=ceil_mode, count_include_pad=include)
    number = None if divisor is None else whole_number(divisor)
    if divisor is not None and not number:
        raise ValueError(f"{who}: divisor must be an int other than 0, got {divisor!r}; leave it out to divide by the count.")
    apart = None if set(dilation) == {1} else dilation
    pool = Pool(window, stride, amounts, apart, bool(ceil_mode), bool(include), number)
    if not isinstance(amounts, str) and any(n >= r for pair, r in zip(amounts, pool.reach) for n in pair):
        raise ValueError(
            f"{who}: padding must be less than the window reaches, {pool.reach}, got {padding!r}; a window in it would see "
            "nothing of x."
        )
    return pool


def expect_windows(who: str, params: Any, x: Any, pool: Pool) -> None:
    """Raise TypeError or ValueError for params, or for an x without the axes or the size that the windows need."""
    expect_params(who, params, tuple)
    expect_float(who, "x", x)
    dims = len(pool.window)
    if x.ndim <= dims:
        raise ValueError(f"{who}: x must have shape (..., {SPACE[dims]}, channels), got {describe(x)}; reshape it.")
    space = pool.space(x.shape)
    if any(n < 1 or n + a + b < r for n, r, (a, b) in zip(space, pool.reach, pool.given(space))):
        raise ValueError(
            f"{who}: the window {pool.window} must fit into the padded input, got {describe(x)} with padding {pool.padding}; "
            "use a smaller window, or pad more."
        )
