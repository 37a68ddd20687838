"""What a gradient over a mesh would be under each known fault, so that the fault can be named."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

Truth = Callable[[list[np.ndarray], list[np.ndarray]], dict[str, np.ndarray]]


class Sharding(NamedTuple):
    """The mesh that a rule runs over; specs: how the leaves and outputs lie on it, by name, as far as known."""

    mesh: Mesh
    specs: dict[str, P] = {}  # noqa: RUF012  (never written to)


def axis_sizes(mesh: Mesh) -> list[tuple[str, int]]:
    """The size of every mesh axis, and of several together, with a description."""
    axes = [name for name, n in mesh.shape.items() if n > 1]
    found = []
    for count in range(1, len(axes) + 1):
        for some in itertools.combinations(axes, count):
            found.append((f"the size of mesh {axis_words(some)}", math.prod(mesh.shape[name] for name in some)))
    return found


def axis_words(axes: tuple[str, ...]) -> str:
    """`axis data`, or `axes data and model`."""
    return ("axis " if len(axes) == 1 else "axes ") + " and ".join(axes)


def place_of(spec: P, axis: str) -> int | None:
    """The axis of an array that this mesh axis alone splits."""
    return next((d for d, entry in enumerate(spec) if entry in (axis, (axis,))), None)


def mentions(spec: P) -> frozenset[str]:
    """The mesh axes over which an array of this spec differs."""
    entries = (entry if isinstance(entry, tuple) else (entry,) for entry in spec if entry is not None)
    return frozenset(name for names in entries for name in names)


def suspects(sharding: Sharding, diff: dict[str, np.ndarray], cts: list[np.ndarray], truth: Truth) -> Callable[..., Any]:
    """suspects(leaf) -> [(kind, detail, what the leaf would be)], for arguments diff, by name, and cotangents.

    truth(arguments, cts) -> outputs and gradients of the reference, by name.
    """

    @functools.cache
    def right() -> dict[str, np.ndarray]:
        return truth(list(diff.values()), cts)

    @functools.cache
    def counted(name: str, n: int) -> dict[str, np.ndarray]:
        return truth([n * x if other == name else x for other, x in diff.items()], cts)

    @functools.cache
    def shares(axis: str) -> list[dict[str, np.ndarray]]:
        outputs = [spec for name, spec in sharding.specs.items() if name.startswith("output")]
        cut = [place_of(spec, axis) for spec in outputs]
        n = sharding.mesh.shape[axis]
        if all(d is None for d in cut):
            return []
        own = [[c if d is None else _only(c, d, n, k) for c, d in zip(cts, cut)] for k in range(n)]
        return [truth(list(diff.values()), some) for some in own]

    def of(leaf: str) -> Iterator[tuple[str, str, np.ndarray]]:
        for axis, n in sharding.mesh.shape.items():
            if n == 1:
                continue
            if leaf.startswith("output"):
                for name, spec in sharding.specs.items():
                    if name in diff and axis not in mentions(spec):
                        why = f"equals the reference with {name} times {n}, the size of mesh axis {axis}: is it added on every "
                        yield "wrong_primal", f"{why}device before a sum over them?", counted(name, n)[leaf]
                continue
            d = place_of(sharding.specs.get(leaf, P()), axis)
            if d is None:
                continue
            parts = np.split(right()[leaf], n, d)
            for k in range(1, n):
                why = f"has every device's part {k} further along mesh axis {axis}: sent on again instead of back?"
                yield "permuted", why, np.concatenate(parts[-k:] + parts[:-k], d)
            if own := shares(axis):
                why = f"every device along mesh axis {axis} keeps only its part of its own gradient, "
                kept = [np.split(found[leaf], n, d)[k] for k, found in enumerate(own)]
                yield "partial", f"{why}without the sum over all: split instead of a reduce-scatter?", np.concatenate(kept, d)

    return lambda leaf: list(of(leaf))


def _only(ct: np.ndarray, d: int, n: int, k: int) -> np.ndarray:
    """ct where the k-th of n devices has it, zero elsewhere."""
    parts = np.split(ct, n, d)
    return np.concatenate([part if i == k else np.zeros_like(part) for i, part in enumerate(parts)], d)
