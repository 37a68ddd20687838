"""Mutants: right backward passes turned into wrong ones. The check must reject every one of them.

A mutant that changes no output bit at the inputs tried (a mean for a sum at batch 1) is equivalent, and does not count.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ...layer import Layer, with_part
from ..layers import layer_subject, located
from ..matrix import ran, run_matrix
from ..options import Options, options
from ..report import Report
from ..running.cells import Cell, cells
from ..subject import Subject, split
from .mutant_kinds import KINDS, Kind


class Outcome(NamedTuple):
    """status: killed, survived or equivalent. where: the wrong part of a composition, "" for the layer itself."""

    mutant: str
    where: str
    status: str
    expected: str | None
    diagnosis: str
    layer: str
    report: Report


def mutants(layer: Layer, inside: int | None = None) -> Iterator[tuple[Kind, str, Layer]]:
    """(kind, where, wrong layer) of every kind that applies: planted in the layer itself, in its parts, and in their parts.

    inside: at most this many kinds for each part, other kinds for the next part.
    """
    for place, (where, part, put) in enumerate(_places(layer)):
        planted = [(kind, kind.plant(part, number)) for number, kind in enumerate(KINDS)]
        found = [(kind, wrong) for kind, wrong in planted if wrong is not None]
        if where and inside is not None:
            start = place * inside % len(found)
            found = [*found[start:], *found[:start]][:inside]
        for kind, wrong in found:
            yield kind, where, put(wrong)


def _places(layer: Layer, where: str = "", put: Callable[[Layer], Layer] = lambda wrong: wrong) -> Iterator[Any]:
    """(where, part, put) of the layer and of every part inside: put(wrong) is the whole with the part replaced."""
    yield where, layer, put
    if layer.remade is not None:
        for i, part in enumerate(layer.parts):
            yield from _places(part, f"{where}/{i}".lstrip("/"), lambda wrong, i=i: put(with_part(layer, i, wrong)))


def hunt(layer: Layer, params: Any, x: Any, *, key: Any = None, seed: int = 0, inside: int | None = None) -> list[Outcome]:
    """What the check says about every mutant of this layer at these parameters and inputs.

    Each is checked in float32 under jit, then in every dtype, eager and jitted: a mutant is killed if one row rejects it.
    inside: see `mutants`.
    """
    spec, diff, other = split((params, x, key), {}, ("params", "x", "key"))
    right = layer_subject(layer, spec)
    stages = [
        options(["float32"], ["jit"], seed=seed, witnesses=()),
        options(None, ["eager", "jit"], seed=seed, witnesses=()),
    ]
    prepared: dict[int, list[Cell]] = {}
    first = prepared[0] = cells(right, diff, other, stages[0])
    base = _outputs(right, first[0], other)
    outcomes = []
    for kind, where, wrong in mutants(layer, inside):
        subject = layer_subject.__wrapped__(wrong, spec)
        status, report = "survived", Report(())
        if _equal(base, _outputs(subject, first[0], other)):
            status = "equivalent"
        else:
            for stage, opts in enumerate(stages):
                if stage not in prepared:
                    prepared[stage] = cells(right, diff, other, opts)
                report = run_matrix(subject, diff, other, opts, prepared[stage])
                if not report.ok:
                    status = "killed"
                    break
        if status == "killed" and where:
            report = located(report, wrong, params, x, key, _repeating(report))
        outcomes.append(_outcome(kind, where, status, report))
    return outcomes


def _repeating(report: Report) -> Options:
    """Options that repeat the first failing row of a report."""
    row = next((r for r in report.failures), None)
    return options([row.dtype] if row else None, [row.transform] if row else None, witnesses=())


def _outcome(kind: Kind, where: str, status: str, report: Report) -> Outcome:
    rows = [row for row in report.failures if row.diagnosis]
    found = rows[0].diagnosis.kind if rows and rows[0].diagnosis else ("" if report.ok else "missing")
    return Outcome(kind.name, where, status, kind.diagnosis, found, rows[0].layer if rows else "", report)


def _outputs(subject: Subject, cell: Cell, other) -> list[np.ndarray] | None:
    subject.problems.found.clear()
    try:
        (found,), problems = ran(subject, cell, other, "jit")
    except (TypeError, ValueError):
        return None
    return None if problems else found


def _equal(a: list[np.ndarray] | None, b: list[np.ndarray] | None) -> bool:
    if a is None or b is None:
        return False
    return all(np.array_equal(u, v, equal_nan=True) for u, v in zip(a, b, strict=True))
