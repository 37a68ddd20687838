"""`search=True`: the check at hostile inputs that it makes itself, and the smallest one that shows a fault."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ...errors import describe
from ..calls import bound
from ..matrix import run_matrix
from ..options import Options
from ..report import ELSEWHERE, Report, Row
from ..subject import Spec, Subject, is_float, is_key, is_passed_on, leaf_name, split, vjp_of
from ..witness.arbiter import only_at_kinks
from ..witness.oracle import DISAGREEMENT
from ..witness.question import asked
from .hostile import Point, drawn, leaves_of, lengths_of, other_lengths, values

SECONDS = 25.0


class Searched(NamedTuple):
    """What a search found: rows of the smallest point that fails, or none; points: how many were checked; refused: the
    points at which the rule raises but its definition does not, with the error."""

    rows: tuple[Row, ...]
    points: int
    refused: tuple[str, ...]
    seconds: float


def expect_search(search: Any, mesh: Any = None) -> float:
    """The seconds that a search may take: 0 for False.

    Raises TypeError unless search is a flag or a number, ValueError for seconds that are not positive, and for a mesh, which
    fixes the sizes.
    """
    if search and mesh is not None:
        raise ValueError("check: search tries other sizes, which do not fit a mesh; leave out search or mesh.")
    if isinstance(search, bool):
        return SECONDS if search else 0.0
    if not isinstance(search, (int, float)):
        raise TypeError(f"check: search must be True, False or seconds, got {describe(search)}; pass True.")
    if not search > 0:
        raise ValueError(f"check: search must be a positive number of seconds, got {search}; pass True for {SECONDS:g}.")
    return float(search)


def with_search(report: Report, search: Searched, name: str) -> Report:
    """The report, with what a search at other inputs found."""
    said = [f"{name}: raises at {at}" for at in search.refused]
    if not search.rows:
        said.append(f"{name}: no fault at {search.points} other inputs, in {search.seconds:.0f} s of search")
    return report._replace(rows=(*report.rows, *search.rows), notes=(*report.notes, *said))


def searched(
    f: Callable[..., Any], definition: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], name: str, seed: int,
    seconds: float,
) -> Searched:  # fmt: skip
    """Search for inputs at which the rule of f is wrong, with shapes and ranges near the given ones.

    A rule may differ from autodiff of its definition at a kink, which one-sided differences must show.
    """
    start = time.perf_counter()
    (f, definition), args, kwargs, names = bound(f, definition, args, kwargs)
    spec, diff, other = split(args, kwargs, names)
    subject = Subject(
        case=name, spec=spec, definition=definition, reference=vjp_of(definition, spec), hand=vjp_of(f, spec),
        rematerialised=vjp_of(f, spec, jax.checkpoint),
    )  # fmt: skip
    search = _Search(subject, f, definition, len(diff), seed)
    others = [leaf_name(path, names) for path, v in jax.tree_util.tree_leaves_with_path((args, kwargs)) if _passed(v)]
    leaves = leaves_of([*diff, *other])
    count = 0
    refused: dict[str, str] = {}
    for sizes, kind, point in _points(leaves, seed):
        if time.perf_counter() - start > seconds:
            break
        rows = search.failures(point)
        count += rows is not None
        if rows and rows[0].leaf == "cotangents":
            why = rows[0].diagnosis.detail if rows[0].diagnosis else ""
            refused.setdefault(why, f"{_words(sizes, kind)}: {why}")
        elif rows:
            sizes, point, rows = _smallest(search, leaves, sizes, kind, point, rows, start + 1.5 * seconds)
            said = f"{ELSEWHERE}, but at {_words(sizes, kind)}: {_written((*spec.names, *others), point)}"
            rows = tuple(row._replace(note=said) for row in rows)
            return Searched(rows, count, tuple(refused.values()), time.perf_counter() - start)
    return Searched((), count, tuple(refused.values()), time.perf_counter() - start)


class _Search(NamedTuple):
    subject: Subject
    f: Callable[..., Any]
    definition: Callable[..., Any]
    n_diff: int
    seed: int

    def failures(self, point: Point) -> tuple[Row, ...] | None:
        """The rows that fail at a point; None if the definition or the rule does not accept it."""
        diff, other = point[: self.n_diff], point[self.n_diff :]
        args, kwargs = self.subject.spec.merge(diff, other)
        try:
            for g in (self.definition, self.f):
                jax.eval_shape(lambda diff, other, g=g: _arrays(g, self.subject.spec, diff, other), diff, other)
        except Exception:
            return None
        floats = [np.dtype(x.dtype).name for x in diff]
        opts = Options((floats[0],), ("jit",), (jax.local_devices()[0],), None, self.seed, False, ())
        try:
            report = run_matrix(self.subject, diff, other, opts)
        except Exception:
            return None
        # If the reference itself loses all digits, e.g. where all numbers are equal, it shows nothing.
        failures = tuple(row for row in report.failures if DISAGREEMENT not in str(row.diagnosis))
        if not failures:
            return ()
        wrong_value = any(row.leaf.startswith(("output", "exact output")) for row in failures)
        if not wrong_value and asked(only_at_kinks, self.f, self.definition, args, kwargs, self.seed, False):
            return ()
        return failures


def _arrays(g, spec: Spec, diff, other) -> list[Any]:
    args, kwargs = spec.merge(diff, other)
    return [y for y in jax.tree.leaves(g(*args, **kwargs)) if isinstance(y, jax.Array)]


def _points(leaves, seed: int) -> Iterator[tuple[dict[int, int], str, Point]]:
    """(changed lengths, the kind of values or "", the arrays): first the given shapes, then other lengths, then both."""
    own = drawn(leaves, {}, seed)
    for kind, point in values(leaves, own, seed):
        yield {}, kind, point
    others = list(other_lengths(lengths_of(leaves)))
    for sizes in others:
        yield sizes, "", drawn(leaves, sizes, seed)
    for sizes in others:
        for kind, point in values(leaves, drawn(leaves, sizes, seed), seed):
            yield sizes, kind, point


def _words(sizes: dict[int, int], kind: str) -> str:
    lengths = ", ".join(f"{new} instead of {old}" for old, new in sizes.items() if new != old)
    return " and ".join(filter(None, (lengths and f"length {lengths}", kind)))


def _smallest(search: _Search, leaves, sizes: dict[int, int], kind: str, point: Point, rows, until: float):
    """(lengths, arrays, rows) with fewer and simpler numbers that fail too, found while there is time."""
    for n in sorted(lengths_of(leaves), reverse=True):
        for fewer in (k for k in (1, 2, 3, 4, n // 4, n // 2) if 0 < k < sizes.get(n, n)):
            if time.perf_counter() > until:
                break
            smaller: Point | None = drawn(leaves, {**sizes, n: fewer}, search.seed)
            if kind:
                smaller = dict(values(leaves, smaller, search.seed)).get(kind)
            found = None if smaller is None else search.failures(smaller)
            if smaller is not None and found and found[0].leaf != "cotangents":
                sizes, point, rows = {**sizes, n: fewer}, smaller, found
                break
    for simple in (np.round, lambda x: np.round(x, 1)):
        for i in range(search.n_diff):
            simpler = [*point[:i], simple(np.asarray(point[i], np.float64)).astype(point[i].dtype), *point[i + 1 :]]
            if time.perf_counter() > until or np.array_equal(simpler[i], point[i]):
                continue
            found = search.failures(simpler)
            if found and found[0].leaf != "cotangents":
                point, rows = simpler, found
    return sizes, point, rows


def _passed(v: Any) -> bool:
    return is_passed_on(v) and not is_float(v)


def _written(names: Sequence[str], point: Sequence[Any]) -> str:
    """The arrays of a point as text: shapes, and the numbers of small ones."""
    said = []
    for name, x in zip(names, point):
        text = f"{name} {describe(x)}"
        if is_passed_on(x) and not is_key(x) and 0 < x.size <= 12:
            numbers = np.asarray(x)
            numbers = numbers + 0.0 if is_float(x) else numbers  # no -0
            text += f" = {np.array2string(numbers, separator=', ', precision=4)}".replace("\n", "")
        said.append(text)
    return "; ".join(said)
