"""The execution matrix: one subject in every dtype, on every device, at every precision, under every transform."""

import functools
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from . import transforms
from .adjoint import adjoint_rows
from .cells import Cell, float32_last, measuring, places, reference_of
from .diagnose import Context, diagnose
from .mesh_faults import axis_sizes, suspects
from .mistakes import mistakes
from .options import WIDE, Options, precisions
from .oracle import eps_of, in_x64, on_host
from .report import Diagnosis, Report, Row
from .subject import Problem, Subject
from .taylor import taylor_rows
from .threads import in_threads, once

RETURNED = re.compile(r"bwd rule .*must produce .*(structure|shapes do not match)")  # JAX, of cotangents unlike the arguments


def run_matrix(subject: Subject, diff: list, other: list, opts: Options, prepared: list[Cell] | None = None) -> Report:
    """Every dtype, transform, device and witness of the options, on these inputs."""
    alone = subject.sharding is not None
    left_out: set[str] = set()  # dtypes in which the definition does not run
    if prepared is None:
        measure = measuring(subject, diff, other, opts)

        def held(place):
            try:
                cell = measure(place)
            except (NotImplementedError, TypeError, ValueError) as error:
                if opts.named or place.dtype.name in WIDE:
                    raise
                left_out.add(place.dtype.name)
                return [], [
                    f"{subject.case}: not held in {place.dtype}, in which it does not run: {str(error).splitlines()[0]}"
                ]
            return _held(subject, cell, other, opts)

        found = in_threads(held, places(opts), float32_last, alone=alone)
    else:
        found = in_threads(lambda cell: _held(subject, cell, other, opts), prepared, float32_last, alone=alone)
    rows = [row for cell_rows, _ in found for row in cell_rows]
    notes = dict.fromkeys(note for _, cell_notes in found for note in cell_notes)
    return Report(tuple(rows), _missing(subject, rows, opts, tuple(notes), left_out), tuple(notes))


def _held(subject, cell: Cell, other, opts: Options) -> tuple[list[Row], list[str]]:
    """The rows and notes of one cell."""
    rows: list[Row] = []
    notes: list[str] = []
    with jax.default_device(cell.device), jax.default_matmul_precision(cell.precision):
        for transform in opts.transforms_in(cell.dtype.name):
            rows += _transform_rows(subject, cell, other, transform)
        if cell.dtype == np.float64 and cell.device == opts.devices[0]:
            try:
                rows += _witness_rows(subject, cell, other, opts, notes)
            except (TypeError, ValueError):
                if all(row.ok for row in rows):  # otherwise a rule that cannot run is among the failures already
                    raise
    return [_in_kind(row, rows) for row in rows], notes + _precision_notes(subject, cell)


def _common(subject, cell, transform) -> dict:
    return {
        "case": subject.case,
        "dtype": cell.dtype.name,
        "transform": transform,
        "device": cell.device.device_kind,
        "precision": cell.precision,
    }


def _precision_notes(subject, cell) -> list[str]:
    narrowed = {b.truth_eps for b in cell.found[0] if b.truth_eps > eps_of(np.float64)}
    own = eps_of(cell.dtype)
    return [
        f"{subject.case}: the definition casts to lower precision inside, so {cell.dtype.name} is held to a relative "
        f"rounding of {eps:.2g} instead of {own:.2g}"
        for eps in narrowed
        if eps > own
    ]


def output_names(n: int) -> list[str]:
    """The names of a function's n outputs in a report."""
    return ["output"] if n == 1 else [f"output[{i}]" for i in range(n)]


def _transform_rows(subject: Subject, cell: Cell, other, transform: str) -> list[Row]:
    """The rows of one transform; a rule that JAX cannot run under it is a failure, not an exception."""
    subject.problems.found.clear()
    try:
        return _run_rows(subject, cell, other, transform)
    except (TypeError, ValueError) as error:
        if str(error).startswith("check:"):
            raise
        if transform == transforms.SECOND_ORDER and "forward-mode" in str(error):
            # fwd calls the decorated function itself, and JAX has no forward mode over that: no fault of the gradient.
            why = "not differentiated twice: fwd calls the function itself, which JAX cannot push forward; call its body there"
            row = Row(subject.case, "", "", "", "", 0.0, 0.0, True, None, "vacuous", note=why)
            return [row._replace(leaf=leaf, **_common(subject, cell, transform)) for leaf in subject.spec.names]
        said = str(error).splitlines()[0]
        kind = "wrong_shape" if RETURNED.search(said) else "unknown"
        problems = subject.problems.found or [Problem("cotangents", kind, f"JAX cannot run it: {said}")]
        return _problem_rows(subject, problems, _common(subject, cell, transform))


def _problem_rows(subject: Subject, problems: Sequence[Problem], common: dict) -> list[Row]:
    return [
        Row(leaf=p.leaf, error=np.inf, bound=0.0, ok=False, diagnosis=Diagnosis(p.kind, p.detail), status="failed",
            layer=subject.owner(p.leaf), **common)
        for p in problems
    ]  # fmt: skip


def ran(subject: Subject, cell: Cell, other, transform: str) -> tuple[list[list[np.ndarray]], tuple[Problem, ...]]:
    """Values and cotangents at every point under this transform, and the problems that tracing it found."""
    run = once(subject.compiled, transform, lambda: transforms.named(transform)(subject))
    with jax.enable_x64(cell.dtype == np.float64):
        points = [([jnp.asarray(x) for x in diff], [jnp.asarray(c) for c in cts]) for diff, cts in cell.points]
        at_points = [on_host(h) for h in run(points, other)]
    found = once(subject.compiled, f"problems {cell.dtype.name} {transform}", lambda: tuple(subject.problems.found))
    return at_points, found


def _run_rows(subject: Subject, cell: Cell, other, transform: str) -> list[Row]:
    x64 = cell.dtype == np.float64
    common = _common(subject, cell, transform)
    if transform == transforms.SECOND_ORDER:
        run = once(subject.compiled, transform, lambda: transforms.second_order(subject.hand))
        diff, cts = cell.points[0]
        with jax.enable_x64(x64):
            h = on_host(run([jnp.asarray(x) for x in diff], other, [jnp.asarray(x) for x in (*cell.tangents, *cts)]))
        return _judged(subject, cell.points[0], other, subject.spec.names, h, cell.second, common, 0)
    at_points, problems = ran(subject, cell, other, transform)
    rows = _problem_rows(subject, problems, common)
    spoiled = {p.leaf for p in problems if p.kind == "wrong_shape"}
    n_outputs = len(cell.points[0][1])
    names = [*output_names(n_outputs), *subject.spec.names]
    for point, h, found in zip(cell.points, at_points, cell.found):
        judged = _judged(subject, point, other, names, h, found, common, n_outputs)
        rows = _worst_of(rows, [row for row in judged if row.leaf not in spoiled])
    return rows + (_exact_rows(subject, cell, other, common) if transform == "jit" else [])


def _judged(subject, point, other, names, h, found, common, n_outputs) -> list[Row]:
    diff, cts = point

    @functools.cache
    def mistaken():
        return mistakes(subject, point, other, names) if n_outputs else []

    context = Context.of(subject.spec.names, diff, dict(zip(names, found)), mistaken)
    if n_outputs == 1 and cts[0].size == 1:
        context = context._replace(ct=float(cts[0].item()))
    if subject.sharding:

        def truth(diff, cts):
            return dict(zip(names, in_x64(reference_of(subject), diff, other, cts)))

        faults = suspects(subject.sharding, dict(zip(subject.spec.names, on_host(diff))), on_host(cts), truth)
        context = context._replace(axes=axis_sizes(subject.sharding.mesh), suspects=faults if n_outputs else context.suspects)
    rows = []
    for i, (leaf, value, budget) in enumerate(zip(names, h, found)):
        error, bound, status = budget.judge(value)
        diagnosis = None
        if budget.disagreement and not budget.proves(value):
            status, diagnosis = "failed", Diagnosis("unknown", budget.disagreement)
        elif status == "failed":
            diagnosis = diagnose(leaf, value, budget, context, primal=i < n_outputs)
        rows.append(
            Row(leaf=leaf, error=error, bound=bound, ok=status != "failed", diagnosis=diagnosis, status=status,
                layer=subject.owner(leaf), **common)
        )  # fmt: skip
    return rows


def _worst_of(rows: list[Row], more: list[Row]) -> list[Row]:
    """One row for each leaf: of several points the worst, failed before vacuous before zero before ok."""
    order = ("ok", "zero", "vacuous", "failed")
    table = {row.leaf: row for row in rows}
    for row in more:
        old = table.get(row.leaf)
        if old is None or order.index(row.status) > order.index(old.status):
            table[row.leaf] = row
    return list(table.values())


def _exact_rows(subject, cell, other, common) -> list[Row]:
    """Outputs without a derivative (integers, flags) must be equal."""
    if not cell.others:
        return []
    diff, cts = cell.points[0]
    with jax.enable_x64(cell.dtype == np.float64):
        h = subject.hand([jnp.asarray(x) for x in diff], other, [jnp.asarray(c) for c in cts]).others
    rows = []
    for i, (ours, theirs) in enumerate(zip(h, cell.others)):
        ok = bool(np.array_equal(np.asarray(ours), theirs))
        wrong = None if ok else Diagnosis("wrong_primal", "an output without a derivative is not the reference's")
        rows.append(Row(leaf=f"exact output[{i}]", error=float(not ok), bound=0.0, ok=ok, diagnosis=wrong,
                        status="ok" if ok else "failed", **common))  # fmt: skip
    return rows


def _witness_rows(subject, cell, other, opts: Options, notes: list[str]) -> list[Row]:
    run = once(subject.compiled, "jit", lambda: transforms.named("jit")(subject))
    diff, cts = cell.points[0]
    n = len(cts)

    def hand(diff):
        with jax.enable_x64(True):
            return on_host(run([([jnp.asarray(x) for x in diff], [jnp.asarray(c) for c in cts])], other)[0])

    rows = []
    if "adjoint" in opts.witnesses:
        rows += adjoint_rows(subject, diff, other, cts, hand(diff)[n:], cell.found[0], opts.seed, notes)
    if "taylor" in opts.witnesses and any(b.truth_eps > eps_of(np.float64) for b in cell.found[0]):
        notes.append(
            f"{subject.case}: no taylor remainder: its small steps are lost where the definition casts to lower precision"
        )
    elif "taylor" in opts.witnesses:
        rows += taylor_rows(subject, reference_of(subject), diff, other, cts, hand, n, cell.found[0], opts.seed)
    common = _common(subject, cell, "jit")
    return [row._replace(**common, layer=subject.owner(row.leaf)) for row in rows]


def _in_kind(row: Row, rows: Sequence[Row]) -> Row:
    """A row of a second derivative or a witness that fails for a reason unknown, with the kind of the first derivative's."""
    second = row.transform == transforms.SECOND_ORDER
    if row.diagnosis is None or row.diagnosis.kind != "unknown" or not (second or row.witness != "reference"):
        return row
    firsts = [r for r in rows if r.witness == "reference" and r.transform != transforms.SECOND_ORDER and r.leaf == row.leaf]
    kinds = [r.diagnosis.kind for r in firsts if r.diagnosis is not None and r.diagnosis.kind != "unknown"]
    words = ("wrong as its first derivative is: " if second else "") + row.diagnosis.detail
    return row._replace(diagnosis=Diagnosis(kinds[0], words)) if kinds else row


def _missing(subject, rows: Sequence[Row], opts: Options, notes: Sequence[str], left_out: set[str]) -> tuple[str, ...]:
    """What was asked for and is in no row, and leaves about which every row is vacuous.

    A row of "cotangents", a rule that did not run or gave no cotangents, has failed for every leaf.
    """
    seen = {(row.leaf, row.dtype, row.transform, row.precision, row.device) for row in rows}
    broken = {key[1:] for key in seen if key[0] == "cotangents" and key[0] not in subject.spec.names}
    missing = []
    for d in (d for d in opts.dtypes if d not in left_out):
        for device in opts.devices:
            for p in precisions(device):
                keys = [(leaf, d, t, p, device.device_kind) for leaf in subject.spec.names for t in opts.transforms_in(d)]
                missing += [f"{subject.case}: {' '.join(key)}" for key in keys if key not in seen and key[1:] not in broken]
    if "float64" in opts.dtypes and not broken:
        for witness in opts.witnesses:
            held = {row.leaf for row in rows if row.witness == witness}
            if not any(witness in note for note in notes):
                missing += [f"{subject.case}: {leaf}, by {witness}" for leaf in subject.spec.names if leaf not in held]
    rows = [row for row in rows if row.witness == "reference"]
    widest = min(opts.dtypes, key=eps_of)
    for leaf in dict.fromkeys(row.leaf for row in rows):
        statuses = {row.status for row in rows if row.leaf == leaf}
        zero = any(row.status == "zero" for row in rows if row.leaf == leaf and row.dtype == widest)
        if not zero and not statuses & {"ok", "failed"}:
            missing.append(
                f"{subject.case}: {leaf}, as every bound reaches its size and so proves nothing; check it at less extreme "
                "inputs, or in a wider dtype"
            )
    return tuple(missing)
