"""The execution matrix: one subject in every dtype, on every device, at every precision, under every transform."""

import functools
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .diagnosis.diagnose import TIMES, Context, diagnose, not_linear
from .diagnosis.mesh_faults import axis_sizes, suspects
from .diagnosis.mistakes import mistakes
from .omissions import LeftOut, missing, refused, words
from .options import PLAIN, Options
from .report import Diagnosis, Report, Row, Where, output_names
from .running import transforms
from .running.cells import Cell, float32_last, measuring, places, reference_of
from .running.threads import in_threads, once
from .subject import Leaves, Problem, Subject, vjp_of
from .witness.oracle import eps_of, in_x64, on_host
from .witness.repeat import BATCH, REPEAT, batch_rows, repeat_rows
from .witness.witnesses import common, in_kind, witness_rows

RETURNED = re.compile(r"bwd rule .*must produce .*(structure|shapes do not match)")  # JAX: cotangents unlike the arguments


def run_matrix(subject: Subject, diff: Leaves, other: Leaves, opts: Options, prepared: list[Cell] | None = None) -> Report:
    """Every dtype, transform, device and witness of the options, on these inputs. The report lists what cannot run."""
    alone = subject.sharding is not None
    left_out = LeftOut()
    if prepared is None:
        measure = measuring(subject, diff, other, opts)

        def held(place):
            try:
                cell = measure(place)
            except Exception as error:
                if refused(error):
                    raise
                return [], [left_out.dtype(subject.case, place, opts, error)]
            return _held(subject, cell, other, opts, left_out)

        found = in_threads(held, places(opts), float32_last, alone=alone)
    else:
        found = in_threads(lambda cell: _held(subject, cell, other, opts, left_out), prepared, float32_last, alone=alone)
    every = [row for cell_rows, _ in found for row in cell_rows]
    rows = [in_kind(row, every) for row in every]
    notes = dict.fromkeys(note for _, cell_notes in found for note in cell_notes if note)
    if rows and all(x.size == 0 for x in diff):
        notes[f"{subject.case}: every argument is empty, so only shapes, dtypes and structure were compared"] = None
    return Report(tuple(rows), missing(subject, rows, opts, tuple(notes), left_out), tuple(notes))


def _held(subject, cell: Cell, other, opts: Options, left_out: LeftOut) -> tuple[list[Row], list[str]]:
    """The rows and notes of one cell."""
    rows: list[Row] = []
    notes: list[str] = []
    with jax.default_device(cell.device), jax.default_matmul_precision(cell.precision):
        for transform in opts.transforms_in(cell.dtype.name):
            rows += _transform_rows(subject, cell, other, transform, left_out, notes)
        plain = subject.plain
        if plain is not None:
            for transform in opts.of_plain(cell.dtype.name):
                found = _transform_rows(plain, cell, other, transform, left_out, notes)
                rows += [row._replace(witness=PLAIN) for row in found]
        if cell.dtype == np.float64 and cell.device == opts.devices[0]:
            run = once(subject.compiled, "jit", lambda: transforms.named("jit")(subject))
            rows += witness_rows(subject, cell, other, run, opts, notes, broken=not all(row.ok for row in rows))
        if {REPEAT, BATCH} & set(opts.witnesses):
            rows += asked_rows(subject, cell, other, opts, notes)
    return rows, notes + _precision_notes(subject, cell)


def asked_rows(subject: Subject, cell: Cell, other, opts: Options, notes: list[str]) -> list[Row]:
    """The rows about equal bits, made only on request."""
    run = once(subject.compiled, "jit", lambda: transforms.named("jit")(subject))
    where, (diff, cts) = common(subject, cell, "jit"), cell.points[0]
    names = [*output_names(len(cts)), *subject.spec.names]
    rows: list[Row] = []
    with jax.enable_x64(cell.dtype == np.float64), suppress(Exception):  # another row reports what a rule raises
        diff, cts = ([jnp.asarray(a) for a in arrays] for arrays in (diff, cts))
        if REPEAT in opts.witnesses:
            rows += repeat_rows(subject, where, names, run, diff, other, cts)
        if BATCH in opts.witnesses:
            rows += batch_rows(subject, where, names, run, diff, other, cts, notes)
    return rows


def _precision_notes(subject, cell) -> list[str]:
    narrowed = {b.truth_eps for b in cell.found[0] if b.truth_eps > eps_of(np.float64)}
    own = eps_of(cell.dtype)
    return [
        f"{subject.case}: the definition casts to lower precision inside, so {cell.dtype.name} is held to a relative "
        f"rounding of {eps:.2g} instead of {own:.2g}"
        for eps in narrowed
        if eps > own
    ]


def _transform_rows(subject: Subject, cell: Cell, other, transform: str, left_out: LeftOut, notes: list[str]) -> list[Row]:
    """The rows of one transform. A rule that cannot run under it is a failure, not an exception; if its definition cannot run
    either, a note says so."""
    subject.problems.found.clear()
    where = common(subject, cell, transform)
    if transform == transforms.SECOND_ORDER and cell.untwice:
        notes.append(left_out.transform(subject.case, cell.dtype, transform, cell.untwice))
        return []
    try:
        return _run_rows(subject, cell, other, transform)
    except Exception as error:
        if refused(error):
            raise
        if transform == transforms.SECOND_ORDER and "forward-mode" in str(error):
            # fwd calls the decorated function itself, which JAX cannot differentiate forward: not a fault of the gradient.
            why = "not differentiated twice: fwd calls the function itself, which has no forward mode; call its body there"
            return [where.row(leaf, error=0.0, bound=0.0, status="vacuous", note=why) for leaf in subject.spec.names]
        if subject.problems.found:
            return _problem_rows(subject, subject.problems.found, where)
        of_definition = _fails(subject, cell, other, transform)
        if of_definition is not None:
            notes.append(left_out.transform(subject.case, cell.dtype, transform, of_definition))
            return []
        said = words(error)
        kind = "wrong_shape" if RETURNED.search(said) else "unknown"
        return _problem_rows(subject, [Problem("cotangents", kind, f"JAX cannot run it: {said}")], where)


def _fails(subject: Subject, cell: Cell, other, transform: str) -> Exception | None:
    """What the definition raises under a transform, if anything: then a rule need not run there either."""
    if transform == transforms.SECOND_ORDER or subject.sharding is not None:
        return None  # it has run under these already

    def tried() -> Exception | None:
        remat = vjp_of(subject.definition, subject.spec, jax.checkpoint)
        itself = replace(subject, hand=subject.reference, rematerialised=remat, compiled={})
        try:
            ran(itself, cell, other, transform)
        except Exception as error:
            return error
        return None

    return once(subject.shared, f"fails {cell.dtype.name} {transform}", tried)


def _problem_rows(subject: Subject, problems: Sequence[Problem], where: Where) -> list[Row]:
    return [
        where.row(p.leaf, error=np.inf, bound=0.0, status="failed", diagnosis=Diagnosis(p.kind, p.detail),
                  layer=subject.owner(p.leaf))
        for p in problems
    ]  # fmt: skip


def ran(subject: Subject, cell: Cell, other: Any, transform: str) -> tuple[list[list[np.ndarray]], tuple[Problem, ...]]:
    """Values and cotangents at every point under this transform, and the problems found in tracing."""
    run = once(subject.compiled, transform, lambda: transforms.named(transform)(subject))
    with jax.enable_x64(cell.dtype == np.float64):
        points = [([jnp.asarray(x) for x in diff], [jnp.asarray(c) for c in cts]) for diff, cts in cell.points]
        at_points = [on_host(h) for h in run(points, other)]
    found = once(subject.compiled, f"problems {cell.dtype.name} {transform}", lambda: tuple(subject.problems.found))
    return at_points, found


def _run_rows(subject: Subject, cell: Cell, other, transform: str) -> list[Row]:
    x64 = cell.dtype == np.float64
    where = common(subject, cell, transform)
    if transform == transforms.SECOND_ORDER:
        run = once(subject.compiled, transform, lambda: transforms.second_order(subject.hand))
        diff, cts = cell.points[0]
        with jax.enable_x64(x64):
            h = on_host(run([jnp.asarray(x) for x in diff], other, [jnp.asarray(x) for x in (*cell.tangents, *cts)]))
        return _judged(subject, cell.points[0], other, subject.spec.names, h, cell.second, where, 0)
    at_points, problems = ran(subject, cell, other, transform)
    rows = _problem_rows(subject, problems, where)
    spoiled = {p.leaf for p in problems if p.kind == "wrong_shape"}
    n_outputs = len(cell.points[0][1])
    names = [*output_names(n_outputs), *subject.spec.names]
    for point, h, found in zip(cell.points, at_points, cell.found):
        judged = _judged(subject, point, other, names, h, found, where, n_outputs)
        rows = _worst_of(rows, [row for row in judged if row.leaf not in spoiled])
    return rows + (_exact_rows(subject, cell, other, where) if transform == "jit" else [])


def _judged(subject, point, other, names, h, found, where, n_outputs) -> list[Row]:
    diff, cts = point

    @functools.cache
    def mistaken():
        return mistakes(subject, point, other, names) if n_outputs else []

    @functools.cache
    def scaled():
        run = once(subject.compiled, "jit", lambda: transforms.named("jit")(subject))
        with jax.enable_x64(where.dtype == "float64"), suppress(Exception):  # another row reports what a rule raises
            points = [[(diff, [np.asarray(factor * c, c.dtype) for c in cts])] for factor in (0, TIMES)]
            return [dict(zip(names, on_host(run(jax.tree.map(jnp.asarray, p), other)[0]))) for p in points]
        return []

    context = Context.of(subject.spec.names, diff, dict(zip(names, found)), mistaken)
    if n_outputs and not subject.sharding:
        context = context._replace(scaled=scaled)
    if n_outputs == 1 and cts[0].size == 1:
        context = context._replace(ct=float(cts[0].item()))
    if subject.sharding:

        def truth(diff, cts):
            return dict(zip(names, in_x64(reference_of(subject), diff, other, cts)))

        faults = suspects(subject.sharding, dict(zip(subject.spec.names, on_host(diff))), on_host(cts), truth)
        context = context._replace(axes=axis_sizes(subject.sharding.mesh), suspects=faults if n_outputs else context.suspects)
    rows = []
    for i, (leaf, value, budget) in enumerate(zip(names, h, found)):
        primal = i < n_outputs
        error, bound, status = budget.judge(value, primal=primal)
        diagnosis = None
        if budget.disagreement and not budget.proves(value):
            status, diagnosis = "failed", Diagnosis("unknown", budget.disagreement)
        elif status == "failed":
            diagnosis = diagnose(leaf, value, budget, context, primal=primal)
        elif where.transform == "jit" and not primal and (crooked := not_linear(leaf, value, budget, context)):
            error, status, diagnosis = np.inf, "failed", Diagnosis("not_linear", crooked)
        skipped = int(budget.skipped(value, primal=primal).sum())
        relative = budget.relative(value) if status == "failed" else 0.0
        relative = np.inf if diagnosis is not None and diagnosis.kind == "not_linear" else relative
        rows.append(
            where.row(leaf, error=error, bound=bound, status=status, diagnosis=diagnosis, layer=subject.owner(leaf),
                      skipped=skipped, entries=budget.truth.size, relative=relative)
        )  # fmt: skip
    return rows


def _worst_of(rows: list[Row], more: list[Row]) -> list[Row]:
    """One row for each leaf: the worst of several points, failed before vacuous before zero before ok."""
    order = ("ok", "zero", "vacuous", "failed")
    table = {row.leaf: row for row in rows}
    for row in more:
        old = table.get(row.leaf)
        if old is None or order.index(row.status) > order.index(old.status):
            table[row.leaf] = row
    return list(table.values())


def _exact_rows(subject, cell, other, where) -> list[Row]:
    """Outputs without a derivative (integers, flags) must be equal."""
    if not cell.others:
        return []
    diff, cts = cell.points[0]
    with jax.enable_x64(cell.dtype == np.float64):
        h = subject.hand([jnp.asarray(x) for x in diff], other, [jnp.asarray(c) for c in cts]).others
    rows = []
    for i, (ours, theirs) in enumerate(zip(h, cell.others)):
        ok = bool(np.array_equal(np.asarray(ours), theirs))
        wrong = None if ok else Diagnosis("wrong_primal", "an output without a derivative differs from the reference's")
        status = "ok" if ok else "failed"
        rows.append(where.row(f"exact output[{i}]", error=float(not ok), bound=0.0, status=status, diagnosis=wrong))
    return rows
