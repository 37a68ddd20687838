"""The independent witnesses of one rule in float64, and the kind of error for rows that cannot tell their own."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...layer import cuts_gradient, fixed_inputs
from ..omissions import refused, words
from ..options import Options
from ..report import Diagnosis, Row, Where
from ..running.cells import Cell, reference_of
from ..running.transforms import SECOND_ORDER
from ..subject import Leaves, Subject
from .adjoint import adjoint_rows
from .oracle import eps_of, on_host
from .taylor import taylor_rows

LESS = ("unknown", "partial", "scaled", "permuted")  # kinds that low precision can hide


class RuleError(Exception):
    """Raised by the rule under test, not by its definition."""


def common(subject: Subject, cell: Cell, transform: str) -> Where:
    """What the rows of one cell under one transform have in common."""
    return Where(subject.case, cell.dtype.name, transform, cell.device.device_kind, cell.precision)


def witness_rows(
    subject: Subject, cell: Cell, other: Leaves, run: Callable[..., Any], opts: Options, notes: list[str], broken: bool
) -> list[Row]:
    """The rows of every witness; run: the rule, jitted. An error of the definition becomes a note, an error of the rule a
    failed row; broken: other rows show already that the rule is wrong."""
    where = common(subject, cell, "jit")
    diff, cts = cell.points[0]
    n = len(cts)

    def hand(diff):
        try:
            with jax.enable_x64(True):
                return on_host(run([([jnp.asarray(x) for x in diff], [jnp.asarray(c) for c in cts])], other)[0])
        except Exception as error:
            raise RuleError(words(error)) from error

    def adjoint():
        return adjoint_rows(subject, where, diff, other, cts, hand(diff)[n:], cell.found[0], opts.seed, notes)

    def taylor():
        fixed = () if subject.layer is None else fixed_inputs(subject.layer)
        leaves = [name for name in subject.spec.names if not name.startswith(fixed)]
        if len(leaves) < len(subject.spec.names):
            notes.append(f"{subject.case}: no taylor remainder of {', '.join(fixed)}: its definition takes it as fixed")
        return taylor_rows(subject, where, reference_of(subject), diff, other, cts, hand, n, cell.found[0], opts.seed, leaves)

    rows: list[Row] = []
    for name, witness in (("adjoint", adjoint), ("taylor", taylor)):
        if name not in opts.witnesses:
            continue
        if name == "taylor" and subject.layer is not None and cuts_gradient(subject.layer):
            notes.append(
                f"{subject.case}: no taylor remainder: its definition cuts the gradient on purpose, so values do not tell"
            )
            continue
        if name == "taylor" and any(b.truth_eps > eps_of(np.float64) for b in cell.found[0]):
            notes.append(
                f"{subject.case}: no taylor remainder: its small steps are lost, as the definition casts to lower precision"
            )
            continue
        try:
            rows += witness()
        except RuleError as error:
            if not broken:
                wrong = Diagnosis("unknown", f"the rule cannot be run for the {name} witness: {error}")
                row = where.row("cotangents", error=np.inf, bound=0.0, status="failed", diagnosis=wrong, witness=name)
                rows.append(row)
        except Exception as error:
            if refused(error):
                raise
            notes.append(f"{subject.case}: the {name} witness was not checked, as the definition raises: {words(error)}")
    return rows


def in_kind(row: Row, rows: Sequence[Row]) -> Row:
    """The row, with the diagnosis of another row of the same leaf if that says more. This serves a second derivative or a
    witness of unknown kind, and a row in low precision if the gradient is wrong in float64 too."""
    if row.diagnosis is None:
        return row
    second = row.transform == SECOND_ORDER
    firsts = [r for r in rows if r.witness == "reference" and r.transform != SECOND_ORDER and r.leaf == row.leaf]
    known = [r for r in firsts if r.diagnosis is not None and r.diagnosis.kind != "unknown"]
    if (second or row.witness != "reference") and row.diagnosis.kind == "unknown" and known:
        said = ("wrong as its first derivative is: " if second else "") + row.diagnosis.detail
        return row._replace(diagnosis=Diagnosis(known[0].diagnosis.kind, said)) if known[0].diagnosis else row
    if row in firsts and row.dtype != "float64" and row.diagnosis.kind in LESS:
        wide = next((r for r in known if r.dtype == "float64" and r.device == row.device), None)
        return row if wide is None else row._replace(diagnosis=wide.diagnosis)
    return row
