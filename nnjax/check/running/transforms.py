"""The ways to run a rule. Each turns run(diff, other, cts) -> Outputs into a function over several points.

A point is (diff, cts): the arguments with a derivative, and cotangents. Integers, keys and flags (`other`) are shared.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from ...errors import unknown_name
from ..subject import Flat, Leaves, Outputs, Run, Subject

Points = Sequence[tuple[Leaves, Leaves]]
AtPoints = Callable[[Points, Leaves], Sequence[Leaves]]  # (points, other) -> outputs and cotangents at each


def eager(subject: Subject) -> AtPoints:
    """Operation by operation, at the first point."""
    return lambda points, other: [_flat(subject.hand(points[0][0], other, points[0][1]))]


def jit(subject: Subject) -> AtPoints:
    """Compiled as one program, at the first point."""
    run = jax.jit(lambda diff, other, cts: _flat(subject.hand(diff, other, cts)))
    return lambda points, other: [run(points[0][0], other, points[0][1])]


def vmap(subject: Subject) -> AtPoints:
    """All points as one batch: no point may affect another."""

    def run(diff, other, cts):
        return jax.vmap(lambda diff, cts: _flat(subject.hand(diff, other, cts)))(diff, cts)

    return _stacked(jax.jit(run))


def scan(subject: Subject) -> AtPoints:
    """One point after another inside `lax.scan`."""

    def run(diff, other, cts):
        return jax.lax.scan(lambda _, point: (None, _flat(subject.hand(point[0], other, point[1]))), None, (diff, cts))[1]

    return _stacked(jax.jit(run))


def checkpoint(subject: Subject) -> AtPoints:
    """As a custom_vjp function under `jax.checkpoint`, at the first point: the forward rule runs twice."""
    run = jax.jit(lambda diff, other, cts: _flat(subject.rematerialised(diff, other, cts)))
    return lambda points, other: [run(points[0][0], other, points[0][1])]


def _flat(out: Outputs) -> Leaves:
    return [*out.floats, *out.cotangents]


def _stacked(run: Flat) -> AtPoints:
    def all_points(points: Points, other):
        diff, cts = (jax.tree.map(lambda *xs: np.stack(xs), *group) for group in zip(*points))  # on the host, without compiling
        out = [np.asarray(y) for y in run(diff, other, cts)]
        return [[y[i] for y in out] for i in range(len(points))]

    return all_points


TRANSFORMS = {"eager": eager, "jit": jit, "vmap": vmap, "scan": scan, "checkpoint": checkpoint}
SECOND_ORDER = "second"  # forward mode over the hand-written reverse, with its own budget


def second_order(run: Run) -> Flat:
    """directional(diff, other, cts + tangents) -> the derivative along the tangents of every cotangent."""

    def directional(diff, other, linear):
        tangents, cts = linear[: len(diff)], linear[len(diff) :]
        return jax.jvp(lambda *diff: run(list(diff), other, cts).cotangents, tuple(diff), tuple(tangents))[1]

    return jax.jit(directional)


def named(name: str) -> Callable[[Subject], AtPoints]:
    """The transform of this name. Raises ValueError for an unknown name."""
    if not isinstance(name, str) or name not in TRANSFORMS:
        raise unknown_name("transform", name, (*TRANSFORMS, SECOND_ORDER))
    return TRANSFORMS[name]
