"""The verdict on one call of a rule: right, wrong, or why it is unknown."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..omissions import words
from ..report import Report, Row, Where
from ..subject import is_passed_on
from ..vjp import IN_OWN, check_vjp
from ..witness.arbiter import APPROXIMATE, APPROXIMATION, BY_VALUES, by_values, only_at_kinks, share_off
from ..witness.oracle import DISAGREEMENT
from ..witness.question import asked, own_options
from .inside import Inside
from .listening import Title

INTENDED = "intended: its gradient is not its body's, "
CONVENTION = "convention: differs from its body at kinks or ties only"
UNSHOWN = "not proved"  # a verdict that is neither right nor wrong starts with this
VERDICTS = ("FAULT", "not checked", UNSHOWN, "intended", "approximation", "convention", "ok", "no derivative")  # by gravity


def fault(report: Report) -> str:
    """The verdict on a rule that is wrong."""
    return f"FAULT: {report.finding.partition(': ')[2]}"


class Case(NamedTuple):
    """A rule and its reference, at the arguments of a call; on: the `jax.shard_map` that it is in; mapped: under vmap."""

    rule: Any
    body: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    seed: int
    on: Inside | None
    mapped: bool


def verdict_on(case: Case, title: Title, waived: str | None) -> tuple[Report, str]:
    """The rows of a call and its verdict; waived: why the gradient differs on purpose, if it does."""
    name, where, _ = title
    try:
        report = _check(case)
    except Exception as error:
        report = Report((), (words(error),))
    if not report.rows:
        said = report.missing[0]
        if "axis name" in said or "no mesh axis" in said:
            said = "it communicates in a jax.shard_map without check_vma or over only some axes: jax.grad is no reference there"
        if said.startswith("check: no argument") or "no output that is real floating" in said:
            return Report(()), "no derivative to check"
        if BY_VALUES not in said:
            return Report((), (f"{name} ({where}): {said}",)), f"not checked: {said}"
    if report.failures and all(row.leaf == "cotangents" and row.bound == 0 for row in report.failures):  # no gradient at all
        said = next(row.diagnosis.detail for row in report.failures if row.diagnosis)
        return Report((), (f"{name} ({where}): {said}",)), f"not checked: {said}"
    if report.failures and all(DISAGREEMENT in str(row.diagnosis) for row in report.failures):
        said = next(str(row.diagnosis.detail) for row in report.failures if row.diagnosis)  # says nothing about the rule
        report = report._replace(rows=tuple(row for row in report.rows if row.ok), missing=(f"{name} ({where}): {said}",))
    if report.failures:
        excuse = _excuse(case, name, report, waived)
        if excuse.startswith(UNSHOWN):
            return Report((), (f"{name} ({where}): {excuse}",)), excuse
        if excuse:
            report = report._replace(rows=tuple(_excused(row, excuse) for row in report.rows))
        verdict = excuse or fault(report)
    elif report.missing and waived is not None:
        verdict = INTENDED + waived
        rows = report.rows or (_row(name)._replace(note=verdict),)
        report = report._replace(rows=rows, missing=())
    elif report.missing and not _by_values_alone(report) and (settled := _settled(case, name)):
        return settled
    elif report.missing:
        verdict = f"{UNSHOWN}: {report.missing[0]}"
    elif any(row.note.startswith(APPROXIMATE) for row in report.rows):
        verdict = next(row.note for row in report.rows if row.note.startswith(APPROXIMATE))
    else:
        how = ", by differences of values, as autodiff does not run in its body" if _by_values_alone(report) else ""
        own = next((note.rpartition(" ")[2] for note in report.notes if IN_OWN in note), "")
        verdict = "ok" + how + (f", in {own} alone" if own else "")
    return report._replace(rows=tuple(row._replace(note=row.note or where) for row in report.rows)), verdict


def _settled(case: Case, name: str) -> tuple[Report, str] | None:
    """The rows and verdict if the reference proves nothing, e.g. at a kink that rounding can cross. The rule may equal autodiff
    of its body entry by entry in float64, except at kinks, or values may decide."""
    if case.on is not None:
        return None
    off = asked(share_off, *case[:5], np.inf)
    if off <= APPROXIMATION:
        return Report((_row(name)._replace(error=off),)), "ok, in float64 entry by entry"
    if asked(only_at_kinks, *case[:5], False):
        return Report((_row(name),)), CONVENTION
    report = by_values(*case[:5], name)
    if not report.rows or report.missing:
        return None
    return report, fault(report) if report.failures else "ok, by differences of values"


def _row(name: str) -> Row:
    where = Where(name, "float64", "jit", jax.devices()[0].device_kind)
    return where.row("every leaf", error=0.0, bound=APPROXIMATION, status="ok", witness="values")


def _excuse(case: Case, name: str, report: Report, waived: str | None) -> str:
    """Why a rule may differ from autodiff of its body, or "" if it may not."""
    shown = [row for row in report.failures if DISAGREEMENT not in str(row.diagnosis)]  # e.g. other random numbers under x64
    if any(row.leaf.startswith(("output", "exact output")) for row in shown):
        return ""
    if waived is not None:
        return INTENDED + waived
    if _by_values_alone(report):
        return ""
    kinks = _right_nearby(case) and (case.on is not None or asked(only_at_kinks, *case[:5], None))
    if kinks:
        return CONVENTION
    if kinks is None:
        return f"{UNSHOWN}: right nearby, but values of its body in float64 do not show a kink where it differs"
    if case.on is not None:
        return ""
    off = asked(share_off, *case[:5], np.inf)
    if off <= APPROXIMATION and all(row.relative <= APPROXIMATION for row in report.failures):
        return f"{APPROXIMATE} in float64 off by {off:.2g} of the gradient of its body: one of the two is approximate"
    ours, theirs = (by_values(*case[:5], name, of) for of in ("rule", "body"))
    if ours.ok and theirs.failures:
        return "ok, by differences of values: autodiff of its body is wrong there, e.g. that of a rule that it calls"
    return ""


def _check(case: Case) -> Report:
    rule, body, args, kwargs, seed, on, mapped = case
    with own_options():
        dtypes = [v.dtype for v in jax.tree.leaves((args, kwargs)) if is_passed_on(v)]
        floats = [np.dtype(d).name for d in dtypes if jnp.issubdtype(d, jnp.floating)]
        dtypes = dict.fromkeys([floats[0] if floats else "float32", "float64"])
        how: dict[str, Any] = {"dtypes": tuple(dtypes), "witnesses": (), "seed": seed, **kwargs}
        how["transforms"] = ("jit", "vmap") if mapped and on is None else ("jit",)
        if on is None:
            return check_vjp(rule, *args, reference=body, **how)
        return check_vjp(on.whole(rule), *args, reference=on.whole(body), mesh=on.mesh, **how)


def _by_values_alone(report: Report) -> bool:
    """Whether its rows come from differences of values, as autodiff does not run in the body."""
    return bool(report.rows) and report.rows[0].witness == "values"


def _excused(row: Row, why: str) -> Row:
    return row if row.ok else row._replace(ok=True, status="ok", note=why, diagnosis=None)


def _right_nearby(case: Case) -> bool:
    """Whether its gradient is right at nearby points without ties, zeros or round numbers."""
    for draw in range(2):
        rng = np.random.default_rng((case.seed, draw))

        def moved(v, rng=rng):
            if not is_passed_on(v) or not jnp.issubdtype(v.dtype, jnp.inexact):
                return v
            v = np.asarray(v) if np.dtype(v.dtype) in (np.float64, np.complex64, np.complex128) else np.asarray(v, np.float32)
            scale = float(np.abs(v).mean()) if v.size and np.isfinite(v).all() and np.any(v) else 1.0
            step = rng.standard_normal(v.shape) + (1j * rng.standard_normal(v.shape) if np.iscomplexobj(v) else 0)
            return (v + 0.01 * scale * step).astype(v.dtype)

        args, kwargs = jax.tree.map(moved, (case.args, case.kwargs))
        if _check(case._replace(args=args, kwargs=kwargs)).failures:
            return False
    return True
