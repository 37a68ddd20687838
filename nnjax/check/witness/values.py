"""Differences of values: they decide where autodiff of a definition does not run, or is itself in question.

Along a direction u, with shrinking steps h, the one-sided slopes (F(x ± h u) - F(x)) / ± h of a smooth F have errors of
order h, their mean of order h^2. Extrapolated from two steps, the error is of the next order, plus the rounding of F over
h. Of all runs of three such estimates, the one that agrees best is taken, and its spread is the error: two could agree by
chance if F is rounded to less than float64.
At a kink the two sides differ however small h is.  (Numerical differentiation: Ridders 1982.)
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .oracle import size_of

STEPS = tuple(10.0 ** (-k / 2) for k in range(3, 15))  # times the size of the moving entries
APART = 16.0  # times the error: two slopes further apart are different


class Slope(NamedTuple):
    """The slope of F along a direction, from the right, from the left and from both, each with its proven error."""

    right: tuple[float, float]
    left: tuple[float, float]
    both: tuple[float, float]

    @property
    def kink(self) -> bool:
        """Whether the two sides differ by more than their errors, or one of them is not finite."""
        (r, r_off), (l, l_off) = self.right, self.left
        if not np.isfinite([r, l]).all():
            return bool(np.isfinite(r) or np.isfinite(l))
        return abs(r - l) > APART * (r_off + l_off) + 1e-6 * max(abs(r), abs(l))

    def allows(self, slope: float) -> bool:
        """Whether a derivative may have this value: the slope itself or, at a kink, one between those of the sides."""
        if not self.kink:
            value, off = self.both
            return abs(slope - value) <= APART * off + 1e-6 * abs(value)
        sides = [(v, off) for v, off in (self.right, self.left) if np.isfinite(v)]
        slack = max(APART * off + 1e-6 * abs(v) for v, off in sides)
        return min(v for v, _ in sides) - slack <= slope <= max(v for v, _ in sides) + slack


def slope(f: Callable[[Sequence[Any]], float], x: Sequence[Any], u: Sequence[Any], eps: float = 2.0**-52) -> Slope:
    """The slope of f at x along u, both lists of arrays in float64; eps: of the precision in which f is computed, so that steps
    are not lost in the rounding of x."""
    moving = [np.abs(a[d != 0]) for a, d in zip(x, u)]
    size = max(max((size_of(a) for a in moving), default=0.0), max(1e-3, eps**0.25) * max(map(size_of, x), default=0.0)) or 1.0
    steps = [size * h for h in STEPS if h >= 0.2 * eps**0.5]
    here = f(x)
    with np.errstate(all="ignore"):
        right, left = ([(f([a + s * h * d for a, d in zip(x, u)]) - here) / (s * h) for h in steps] for s in (1.0, -1.0))
        noise = [4 * eps * abs(here) / h for h in steps]
        mean = [(r + l) / 2 for r, l in zip(right, left)]
        ratio = STEPS[0] / STEPS[1]
        return Slope(_limit(right, noise, ratio), _limit(left, noise, ratio), _limit(mean, noise, ratio**2))


def _limit(slopes: Sequence[float], noise: Sequence[float], factor: float) -> tuple[float, float]:
    """(slope at h = 0, its error); each step is `factor` times smaller than the one before."""
    limits = [(factor * b - a) / (factor - 1) for a, b in zip(slopes, slopes[1:])]
    runs = zip(limits, limits[1:], limits[2:], noise[3:])
    found = [(max(abs(b - a), abs(c - b)) + n, c) for a, b, c, n in runs if np.isfinite([a, b, c]).all()]
    if not found:
        return float(slopes[-1]) if np.isfinite(slopes[-1]) else float("nan"), float("inf")
    off, value = min(found)
    return float(value), float(off)


def directions(x: Sequence[Any], i: int, seed: int, draws: int = 3) -> list[list[np.ndarray]]:
    """Random directions in which only the i-th array moves, every entry by about its own size."""
    rng, found = np.random.default_rng((seed, i)), []
    typical = float(np.abs(x[i][np.isfinite(x[i])]).mean()) if np.isfinite(x[i]).any() else 0.0
    largest = np.maximum(np.abs(x[i]), typical or 1.0)
    largest = np.where(np.isfinite(largest), largest, 0.0)
    scale = largest / (largest.max(initial=0.0) or 1.0)
    for _ in range(draws):
        u = [np.zeros_like(a) for a in x]
        u[i] = scale * (rng.random(x[i].shape) + 0.5) * np.where(rng.random(x[i].shape) < 0.5, -1.0, 1.0)
        found.append(u)
    return found


def in_groups(x: Sequence[Any], i: int, seed: int, groups: int = 16) -> list[list[np.ndarray]]:
    """Directions in which only a few entries of the i-th array move: each alone, or in `groups` if there are more."""
    order = np.random.default_rng((seed, i, 1)).permutation(x[i].size)
    (whole,) = directions(x, i, seed, 1)
    found = []
    for members in np.array_split(order, min(groups, x[i].size)) if x[i].size > 1 else ():
        u = [np.zeros_like(a) for a in x]
        u[i].flat[members] = whole[i].flat[members]
        found.append(u)
    return found


def halves(u: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Two directions, each with half of the entries that move along this one, all in one array."""
    i = next(i for i, d in enumerate(u) if d.any())
    found = []
    for members in np.array_split(np.flatnonzero(u[i]), 2):
        half = [np.zeros_like(d) for d in u]
        half[i].flat[members] = u[i].flat[members]
        found.append(half)
    return found


def tied(x: Sequence[Any], where: Sequence[Any], most: int = 32) -> list[list[Any]]:
    """Directions for the entries that `where` marks: each moved alone, and together with all that equal it."""
    marked = [(i, k) for i, mask in enumerate(where) for k in np.flatnonzero(mask)]
    chosen = [marked[int(n)] for n in np.unique(np.linspace(0, len(marked) - 1, most).astype(int))] if marked else []
    found = []
    for i, k in chosen:
        alone = [np.zeros_like(a) for a in x]
        alone[i].flat[k] = 1.0
        found.append(alone)
    for value in dict.fromkeys(float(x[i].flat[k]) for i, k in chosen):
        together = [(a == value).astype(np.float64) for a in x]
        if sum(u.sum() for u in together) > 1:
            found.append(together)
    return found
