"""Inputs at which hand-written gradients often go wrong, made from the shapes and ranges of given arguments.

Values: ties, zeros, numbers that saturate, huge and tiny ones, repeated ids, empty groups, rows that are masked entirely.
Sizes: 1, 0, one more, and next to a power of two. Axes of equal length count as the same, and change together.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..subject import is_key, is_passed_on


class Leaf(NamedTuple):
    """An array of the arguments, as an example of what it may be."""

    example: Any
    kind: str  # "float", "bool", "int", "partition" (sums to a length), "permutation", "sorted", or "fixed" (e.g. keys)
    low: float  # the range to draw from; floats that are all positive stay positive
    high: float

    @classmethod
    def of(cls, x: Any, lengths: set[int]) -> "Leaf":
        """Inferred from an example; lengths: of all axes of all arguments."""
        if not is_passed_on(x) or is_key(x):
            return cls(x, "fixed", 0.0, 0.0)
        x = np.asarray(x)
        if x.dtype == bool:
            return cls(x, "bool", 0.0, 1.0)
        wide = x.astype(np.float64)
        finite = wide[np.isfinite(wide)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 1.0)
        if jnp.issubdtype(x.dtype, jnp.floating):
            return cls(x, "float", low, high)
        if x.ndim == 1 and x.size > 1 and np.array_equal(np.sort(wide), np.arange(x.size)):
            return cls(x, "permutation", low, high)
        if x.ndim == 1 and x.size > 1 and low >= 0 and int(wide.sum()) in lengths:
            return cls(x, "partition", low, high)
        return cls(x, "sorted" if x.ndim == 1 and x.size > 2 and (np.diff(wide) >= 0).all() else "int", low, high)

    @property
    def size(self) -> float:
        """A typical magnitude of its numbers."""
        return max(abs(self.low), abs(self.high)) or 1.0


Point = list[Any]  # the arrays of one input
Change = Callable[[Leaf, np.ndarray, np.random.Generator], np.ndarray]


def leaves_of(arrays: Sequence[Any]) -> list[Leaf]:
    """The leaves of all arrays of the arguments."""
    lengths = {n for x in arrays for n in np.shape(x) if n > 1}
    return [Leaf.of(x, lengths) for x in arrays]


def lengths_of(leaves: Sequence[Leaf]) -> list[int]:
    """The lengths of axes, each once, in order of appearance."""
    return list(dict.fromkeys(n for leaf in leaves if leaf.kind != "fixed" for n in leaf.example.shape))


def drawn(leaves: Sequence[Leaf], sizes: dict[int, int], seed: int) -> Point:
    """Arrays like the examples, with other lengths of axes."""
    rng = np.random.default_rng(seed)
    return [leaf.example if leaf.kind == "fixed" else _drawn(leaf, sizes, rng) for leaf in leaves]


def _drawn(leaf: Leaf, sizes: dict[int, int], rng: np.random.Generator) -> np.ndarray:
    x = leaf.example
    shape: Any = tuple(sizes.get(n, n) for n in x.shape)
    most = int(leaf.high) + 1  # an id is below a length: if the length shrinks, so must the id
    bound = min([most, *(new for old, new in sizes.items() if new < old and most <= old)])
    if leaf.kind == "partition":
        whole = int(x.sum())
        return x if not {whole, len(x)} & set(sizes) else _partition(sizes.get(whole, whole), shape[0], rng, x.dtype)
    if leaf.kind == "permutation":
        return x if shape == x.shape else rng.permutation(shape[0]).astype(x.dtype)
    if shape == x.shape and (leaf.kind in ("bool", "float") or bound == most):
        return x
    if leaf.kind == "bool":
        return rng.random(shape) < max(0.5, float(x.mean() if x.size else 0.5))
    if leaf.kind == "float":
        if leaf.low >= 0:
            return rng.uniform(leaf.low, leaf.high or 1.0, shape).astype(x.dtype)
        return (rng.standard_normal(shape) * leaf.size / 2).astype(x.dtype)
    values = rng.integers(min(int(leaf.low), max(bound - 1, 0)), max(bound, 1), shape)
    return (np.sort(values) if leaf.kind == "sorted" else values).astype(x.dtype)


def _partition(whole: int, parts: int, rng: np.random.Generator, dtype: Any) -> np.ndarray:
    ends = np.sort(rng.integers(0, whole + 1, max(parts - 1, 0)))
    return np.diff([0, *ends, whole]).astype(dtype)[:parts]


def _some(share: float, value: Callable[[Leaf, np.random.Generator, tuple[int, ...]], Any]) -> Change:
    def change(leaf, x, rng):
        if leaf.kind != "float":
            return x
        new = np.asarray(value(leaf, rng, x.shape)).astype(x.dtype)
        new = np.abs(new) if leaf.low >= 0 else new
        return x if leaf.low > 0 and not new.all() else np.where(rng.random(x.shape) < share, new, x)

    return change


def _signs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.where(rng.random(shape) < 0.5, -1.0, 1.0)


def _ties(leaf: Leaf, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if leaf.kind != "float":
        return x
    step = leaf.size / 2
    rounded = (np.round(np.asarray(x, np.float64) / step) * step).astype(x.dtype)
    return np.where(rounded == 0, np.asarray(step, x.dtype), rounded) if leaf.low > 0 else rounded


def _alike(leaf: Leaf, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.full_like(x, x.flat[0]) if leaf.kind == "float" and x.size else x


def _hidden(rows: str) -> Change:
    def change(leaf, x, rng):
        minus_infinity = leaf.kind == "float" and np.isneginf(leaf.example).any()
        if not (leaf.kind == "bool" or minus_infinity) or x.ndim == 0 or not x.size:
            return x
        x = np.array(x)
        index = (0,) * (x.ndim - 1) if rows == "one" and x.ndim > 1 else (slice(None),)
        x[index] = rows == "none" if leaf.kind == "bool" else (0.0 if rows == "none" else -np.inf)
        return x

    return change


def _ids(how: str) -> Change:
    def change(leaf, x, rng):
        if leaf.kind == "partition" and x.size:
            whole, new = int(x.sum()), np.zeros_like(x)
            if how == "last":
                new[-1] = whole
            elif how == "first":
                new[0] = whole
            else:
                new[::2] = _partition(whole, len(new[::2]), rng, x.dtype)
            return new
        if leaf.kind not in ("int", "sorted") or not x.size:
            return x
        return np.full_like(x, {"first": x.min(), "last": x.max(), "few": np.sort(x, None)[x.size // 2]}[how])

    return change


VALUES: dict[str, Change] = {
    "ties": _ties,
    "a masked row": _hidden("one"),
    "a single id, or one group that has all": _ids("last"),
    "empty groups": _ids("few"),
    "zeros among others": _some(0.4, lambda leaf, rng, shape: np.zeros(shape)),
    "all zero": _some(1.1, lambda leaf, rng, shape: np.zeros(shape)),
    "all equal": _alike,
    "numbers that saturate": _some(0.3, lambda leaf, rng, shape: 40.0 * _signs(rng, shape)),
    "large numbers": _some(0.3, lambda leaf, rng, shape: 1e4 * _signs(rng, shape)),
    "huge numbers": _some(0.2, lambda leaf, rng, shape: 2.0**60 * _signs(rng, shape)),
    "tiny numbers": _some(0.3, lambda leaf, rng, shape: 2.0**-60 * _signs(rng, shape)),
    "everything masked": _hidden("all"),
    "nothing masked": _hidden("none"),
    "only the first id": _ids("first"),
}


def values(leaves: Sequence[Leaf], point: Point, seed: int) -> Iterator[tuple[str, Point]]:
    """The same shapes, with each kind of values that makes a difference."""
    for name, change in VALUES.items():
        rng = np.random.default_rng((seed, len(name)))
        new = [x if leaf.kind == "fixed" else change(leaf, x, rng) for leaf, x in zip(leaves, point)]
        if any(not np.array_equal(a, b) for a, b, leaf in zip(new, point, leaves) if leaf.kind != "fixed"):
            yield name, new


def other_lengths(lengths: Sequence[int]) -> Iterator[dict[int, int]]:
    """Other lengths to try, the most informative first."""

    def off(n):
        return 2 ** max(1, int(np.ceil(np.log2(max(n, 2))))) + 1

    for number in (lambda n: 1, lambda n: n + 1, off, lambda n: max(n - 1, 1), lambda n: 0, lambda n: 2 * n + 1):
        for n in lengths:
            if number(n) != n:
                yield {n: number(n)}
    yield dict.fromkeys(lengths, 1)
