"""The random numbers of a check: inputs rounded once, neighbours of a point, cotangents."""

from typing import Any, NamedTuple

import numpy as np

from ..subject import Leaf


def _hash(x: np.ndarray, salt: int) -> np.ndarray:
    """64 random bits for each entry, from its absolute value: the same for equal values, so that ties stay ties."""
    h = np.asarray(np.abs(x), np.float64).view(np.uint64)
    with np.errstate(over="ignore"):  # it wraps around on purpose
        h = h + np.uint64(salt)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64's finaliser
            h = (h ^ (h >> np.uint64(shift))) * np.uint64(factor)
    return h ^ (h >> np.uint64(31))


class Rounder(NamedTuple):
    """x with every entry rounded once, in 16 random ways: up and down are x (1 +- eps) in x's dtype, bits say which."""

    up: np.ndarray
    down: np.ndarray
    bits: np.ndarray

    @classmethod
    def of(cls, x: Leaf, eps: float, salt: int) -> "Rounder":
        """Zeros stay zero; entries that would overflow stay as they are."""
        wide = np.asarray(x).astype(np.float64)

        def times(factor):
            with np.errstate(over="ignore", invalid="ignore"):
                moved = np.asarray(wide * factor).astype(x.dtype)
            return np.where(np.isfinite(moved.astype(np.float64)), moved, x)

        return cls(times(1.0 + eps), times(1.0 - eps), (_hash(wide, salt) >> np.uint64(48)).astype(np.uint16))

    def draw(self, k: int) -> np.ndarray:
        """The k-th of the 16 ways."""
        return np.where(self.bits & np.uint16(1 << k), self.up, self.down)


def neighbour(x: np.ndarray, salt: int) -> np.ndarray:
    """x (1 - u / 4), u in 0 ... 1 from the entry's value: other numbers of the same signs, and ties stay ties.

    The value is taken in float32 at most, so that the neighbours in float32 and in float64 are the same point.
    """
    u = (_hash(np.asarray(x).astype(np.float32), salt) >> np.uint64(56)).astype(np.float64) / 256
    return np.asarray(np.asarray(x).astype(np.float64) * (1.0 - u / 4)).astype(x.dtype)


def random_like(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Random cotangents: magnitudes 0.5 ... 1.5, random signs.

    Never ones: a sum of outputs passes a wrong softmax and a wrong layer norm. Never near zero: a tiny scalar cotangent
    would shrink the gradient below the rho of the draws, and prove nothing.
    """
    u = np.asarray(rng.random(shape, np.float32)) - np.float32(0.5)
    return np.asarray(2 * u + np.copysign(np.float32(0.5), u)).astype(dtype)
