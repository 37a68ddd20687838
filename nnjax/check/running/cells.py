"""What every transform is compared with in one dtype, on one device, at one precision: the budgets, once for all rules.

Nothing here depends on the rule under test, so the mutants of a layer share it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ..options import Options, precisions
from ..subject import Flat, Leaves, Subject, sorted_outputs
from ..witness.oracle import LARGE, Budget, budgets
from ..witness.rounding import neighbour, random_like
from ..witness.truth import support
from . import transforms
from .threads import in_threads, once


class Cell(NamedTuple):
    """What every transform in one dtype, on one device, at one precision is compared with."""

    dtype: np.dtype
    device: Any
    precision: str
    points: list[tuple[Leaves, Leaves]]  # (diff, cts), first those of the caller
    found: list[list[Budget]]  # of each point
    second: list[Budget]
    tangents: Leaves
    others: Leaves  # outputs without a derivative, from the definition
    untwice: Exception | None = None  # what the definition raises when it is differentiated twice


def reference_of(subject: Subject) -> Flat:
    """reference(diff, other, cts) -> outputs and cotangents of the definition, in one list; compiled once."""

    def flat(diff, other, cts):
        out = subject.reference(diff, other, cts)
        return [*out.floats, *out.cotangents]

    return once(subject.shared, "reference", lambda: jax.jit(flat))


class Place(NamedTuple):
    """The dtype, device and precision of a cell."""

    dtype: np.dtype
    device: Any
    precision: str


def float32_last(place: Any) -> bool:
    """Which places to start last: by then the measurements shared by float32 and float64 exist."""
    return place.dtype == np.float32


def places(opts: Options) -> list[Place]:
    """Every dtype, device and precision of the options."""
    return [Place(np.dtype(name), d, p) for name in opts.dtypes for d in opts.devices for p in precisions(d, name)]


def cells(subject: Subject, diff: Leaves, other: Leaves, opts: Options) -> list[Cell]:
    """Budgets for every dtype, device and precision, which do not depend on the rule under test."""
    return in_threads(measuring(subject, diff, other, opts), places(opts), float32_last)


def measuring(subject: Any, diff: Any, other: Any, opts: Options) -> Callable[[Place], Cell]:
    """measure(place) -> its cell, where places share measurements if they can."""
    # Rounding is measured once for float32 and float64, if both are checked.
    measured = {} if {"float32", "float64"} <= set(opts.dtypes) else None

    def measure(place):
        with jax.default_device(place.device), jax.default_matmul_precision(place.precision):
            return _cell(subject, diff, other, opts, place, measured)

    return measure


def _cell(subject, diff, other, opts: Options, place: Place, measured) -> Cell:
    dtype = place.dtype
    diff = [x.astype(dtype) for x in diff]

    def value(diff, other):
        args, kwargs = subject.spec.merge(diff, other)
        return sorted_outputs(subject.definition(*args, **kwargs))

    with jax.enable_x64(dtype == np.float64):
        shapes, other_shapes = jax.eval_shape(value, diff, other)
        others = jax.tree.map(np.asarray, jax.jit(value)(diff, other)[1]) if other_shapes else []
    if not shapes:
        raise TypeError(
            f"check: {subject.case} has no output that is real floating point, so it has no gradient; "
            "return the differentiable value."
        )
    rng = np.random.default_rng((opts.seed, 0))
    cts = [random_like(rng, s.shape, s.dtype) for s in shapes]
    chosen = opts.transforms_in(dtype.name)
    reference = reference_of(subject)
    eps = once(subject.shared, "support", lambda: support(subject.reference, diff, other, cts))

    def budget(f, d, linear, at):
        at = (at, place.device, place.precision)
        return budgets(f, d, other, linear, dtype, opts.seed, opts.compute_dtype, eps, measured, at)

    points: list[tuple[Leaves, Leaves]] = [(diff, cts)]
    found = [budget(reference, diff, cts, 0)]
    if {"vmap", "scan"} & set(chosen):
        if all(b.truth.size >= LARGE for b in found[0]):  # only scaled cotangents, by a factor that scales every rounding
            points.append((diff, [np.asarray(-2, c.dtype) * c for c in cts]))
            found.append([*found[0][: len(cts)], *(b.scaled(-2.0) for b in found[0][len(cts) :])])
        else:
            points.append(([neighbour(x, opts.seed) for x in diff], [random_like(rng, c.shape, c.dtype) for c in cts]))
            found.append(budget(reference, *points[1], 1))
    tangents = [random_like(rng, x.shape, x.dtype) for x in diff]
    second = []
    if transforms.SECOND_ORDER in chosen:
        directional = once(subject.shared, "second", lambda: transforms.second_order(subject.reference))
        try:
            second = budget(directional, diff, [*tangents, *cts], "second")
        except Exception as error:
            return Cell(*place, points, found, second, tangents, others, error)
    return Cell(*place, points, found, second, tangents, others)
