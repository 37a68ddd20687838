"""Audit: run any program once, and check every custom_vjp and custom_jvp rule that it passes through.

The program runs under `jax.disable_jit`, where the bodies of `jit`, `scan` and `cond` are Python, so that every rule is
met with the values it gets.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import describe
from ..omissions import words
from ..options import expect_seed
from ..report import Report, Row, Where, merged
from ..searching.search import expect_search, searched
from ..subject import is_passed_on
from ..vjp import check_vjp
from ..witness.arbiter import APPROXIMATE, APPROXIMATION, asked, by_values, only_at_kinks, own_options, share_off
from ..witness.oracle import DISAGREEMENT
from .inside import Inside
from .listening import Call, Heard, Title, listening
from .rules import rule_of

Rule = TypeVar("Rule")
INTENDED = "intended: its gradient is not its body's, "
UNSHOWN = "not proved"  # how a verdict begins that is neither right nor wrong
VERDICTS = ("FAULT", "not checked", UNSHOWN, "intended", "approximation", "convention", "ok", "no derivative")  # by gravity
NOTHING: Mapping[Any, Callable[..., Any]] = MappingProxyType({})


def intended(rule: Rule, why: str) -> Rule:
    """The same rule, marked as one whose gradient differs from its body's on purpose: an audit waives it, and says why.

    Raises TypeError for what is no custom_vjp or custom_jvp function, and for a reason that is no sentence.
    """
    marked = rule_of(rule)
    if marked is None:
        came = getattr(rule, "__name__", describe(rule))
        raise TypeError(f"intended: rule must be a jax.custom_vjp or custom_jvp function, got {came}; mark one of these.")
    if not isinstance(why, str):
        raise TypeError(f"intended: why must be a sentence, got {describe(why)}; say what the gradient is for.")
    marked.intended = why
    return rule


def audit(
    fn: Callable[..., Any], *args: Any, seed: int = 0, intended: Sequence[str] = (),
    references: Mapping[Any, Callable[..., Any]] = NOTHING, search: bool | float = False, **kwargs: Any,
) -> Report:  # fmt: skip
    """Check every custom_vjp and custom_jvp rule that fn(*args, **kwargs) runs through, on the values it meets.

    Each rule is held against its undecorated body, in the dtype of the call and in float64. A note for each says its
    name, file and line, the calls seen and the verdict: ok, FAULT, or convention, for a rule that differs from its body
    at a kink or tie only (`jax.nn.relu` at 0), shown by one-sided differences of values; "not checked" with what it or its body
    raised, and "not proved" where nothing could be compared. A report without any rule is not ok, nor is one with these two.
    Where autodiff does not run in a body (a while_loop, a callback), or differs from the rule, differences of the body's values
    in float64 decide (`nnjax.check.witness.values`), and the verdict says so.
    intended: names of rules whose gradient differs from their body's on purpose; `nnjax.intended` marks one in code.
    references: {rule or its name: the same function in plain jax.numpy}, where a body is none that autodiff can go through.
    search: check each rule that is right here at hostile inputs too, for 25 seconds or as many as it says, as `check_vjp` does.
    Under `vmap` and `grad` a rule sees tracers: there its shapes are kept and values drawn.
    A rule met inside `jax.shard_map` is checked inside one, on drawn values; with check_vma=False, where JAX's own
    transposes of what communicates are no reference, such a rule is not checked, and the report says so.
    Raises TypeError where fn is not callable; what fn raises passes through.
    """
    if not callable(fn):
        raise TypeError(f"audit: fn must be a function, got {describe(fn)}; pass the function, then its arguments.")
    expect_seed("audit", seed)
    if isinstance(intended, str):
        raise TypeError(f"audit: intended must be names of rules, got {intended!r}; pass ({intended!r},).")
    _expect_references(references)
    return audited(fn, args, kwargs, seed, intended, references, expect_search(search))


def audited(
    fn: Callable[..., Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] = NOTHING, seed: int = 0,
    intended: Sequence[str] = (), references: Mapping[Any, Callable[..., Any]] = NOTHING, seconds: float = 0.0,
    said: Callable[[Any], None] = lambda found: None,
) -> Report:  # fmt: skip
    """The same, telling said(found) of each rule as soon as it is checked."""
    heard: list[Heard] = []
    with jax.disable_jit(), listening(heard):
        try:
            fn(*args, **kwargs)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise  # from inside fn: its own
            raise TypeError(f"audit: fn cannot be called with these arguments: {error}; pass those that it takes.") from None
    found = []
    for entry in heard:
        found.append(examined(entry, seed, intended, references, seconds))
        said(found[-1])
    missing = [m for f in found for m in f.report.missing]
    if not heard:
        missing.append("any rule: the program ran through no custom_vjp or custom_jvp function")
    return Report(merged(f.report for f in found).rows, tuple(missing), tuple(map(str, found)))


def _expect_references(references: Mapping[Any, Callable[..., Any]]) -> None:
    if not isinstance(references, Mapping) or not all(map(callable, references.values())):
        came = describe(references)
        raise TypeError(f"audit: references must be {{rule or its name: plain function}}, got {came}; pass such a dict.")
    for key in references:
        if not isinstance(key, str) and rule_of(key) is None:
            raise TypeError(f"audit: a key of references is {describe(key)}; pass a custom_vjp or custom_jvp, or its name.")


class Found(NamedTuple):
    """What an audit says of one rule."""

    title: Title
    calls: int
    verdict: str
    report: Report

    def __str__(self) -> str:
        return f"{self.title.name} ({self.title.where}): {self.calls} call{'s' if self.calls > 1 else ''}, {self.verdict}"


def examined(
    entry: Heard, seed: int = 0, intended: Sequence[str] = (), references: Mapping[Any, Callable[..., Any]] = NOTHING,
    seconds: float = 0.0,
) -> Found:  # fmt: skip
    """The rows of a rule's calls and the gravest verdict; seconds: of a search for a fault elsewhere, where all are right."""
    name, where, _ = entry.title
    if entry.rule is None or not entry.samples:
        verdict = "not checked: it closes over values that were being traced"
        return Found(entry.title, entry.calls[0], verdict, Report((), (f"{name} ({where}): {verdict}",)))
    waived = "as `intended` says" if name in intended else getattr(entry.rule, "intended", None)
    plain = next((g for key, g in references.items() if key == name or rule_of(key) is entry.rule), None)
    judged = [_judged(call, entry.title, seed, waived, plain) for call in entry.samples]
    ranked = sorted((v for _, v in judged), key=lambda v: next(i for i, o in enumerate(VERDICTS) if v.startswith(o)))
    report, verdict = merged(report._replace(notes=()) for report, _ in judged), ranked[0]
    if seconds and verdict.startswith(("ok", "convention")) and entry.samples[0].on is None:
        args, kwargs = next(entry.samples[0].filled(seed))
        rows = searched(entry.rule, plain or entry.samples[0].body, args, kwargs, name, seed, seconds).rows
        report = report._replace(rows=(*report.rows, *rows))
        verdict = _fault(report) if rows else verdict
    return Found(entry.title, entry.calls[0], verdict, report)


def _fault(report: Report) -> str:
    return f"FAULT: {report.finding.partition(': ')[2]}"


def _judged(call: Call, title: Title, seed: int, waived: str | None, plain: Any) -> tuple[Report, str]:
    """The rows of one call and its verdict; where its values are drawn, of the first ones that prove something."""
    report, verdict = Report(()), ""
    for args, kwargs in call.filled(seed):
        report, verdict = _verdict(Case(call.rule, plain or call.body, args, kwargs, seed, call.on), title, waived)
        if not verdict.startswith((UNSHOWN, "not checked")):
            break
    return report, verdict + (", on drawn values" if call.drawn and verdict.startswith("ok") else "")


class Case(NamedTuple):
    """A rule and what it is held against, at the arguments of a call; on: where inside `jax.shard_map`."""

    rule: Any
    body: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    seed: int
    on: Inside | None


def _verdict(case: Case, title: Title, waived: str | None) -> tuple[Report, str]:
    name, where, _ = title
    try:
        report = _check(case)
    except Exception as error:
        report = Report((), (words(error),))
    if not report.rows:
        said = report.missing[0]
        if "axis name" in said or "no mesh axis" in said:
            said = "it communicates in a jax.shard_map without check_vma or over some axes alone: jax.grad is no reference"
        if said.startswith("check: no argument") or "no output that is real floating" in said:
            return Report(()), "no derivative to check"
        if "differences of values" not in said:
            return Report((), (f"{name} ({where}): {said}",)), f"not checked: {said}"
    if report.failures and all(row.leaf == "cotangents" and row.bound == 0 for row in report.failures):  # it gives no gradient
        said = next(row.diagnosis.detail for row in report.failures if row.diagnosis)
        return Report((), (f"{name} ({where}): {said}",)), f"not checked: {said}"
    if report.failures and all(DISAGREEMENT in str(row.diagnosis) for row in report.failures):
        said = next(str(row.diagnosis.detail) for row in report.failures if row.diagnosis)  # nothing of the rule is shown
        report = report._replace(rows=tuple(row for row in report.rows if row.ok), missing=(f"{name} ({where}): {said}",))
    if report.failures:
        excuse = _excuse(case, name, report, waived)
        if excuse.startswith(UNSHOWN):
            return Report((), (f"{name} ({where}): {excuse}",)), excuse
        if excuse:
            report = report._replace(rows=tuple(_excused(row, excuse) for row in report.rows))
        verdict = excuse or _fault(report)
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
        own = next((note.rpartition(" ")[2] for note in report.notes if "does not run in float64" in note), "")
        verdict = "ok" + how + (f", in {own} alone" if own else "")
    return report._replace(rows=tuple(row._replace(note=row.note or where) for row in report.rows)), verdict


def _settled(case: Case, name: str) -> tuple[Report, str] | None:
    """The rows and verdict where the reference proves nothing, as beside a kink, which rounding may pass: the rule may equal
    autodiff of its body entry by entry in float64, but for kinks, or values may decide."""
    if case.on is not None:
        return None
    off = asked(share_off, *case[:5], np.inf)
    if off <= APPROXIMATION:
        return Report((_row(name)._replace(error=off),)), "ok, in float64 entry by entry"
    if asked(only_at_kinks, *case[:5], False):
        return Report((_row(name),)), "convention: differs from its body at kinks or ties only"
    report = by_values(*case[:5], name)
    if not report.rows or report.missing:
        return None
    return report, _fault(report) if report.failures else "ok, by differences of values"


def _row(name: str) -> Row:
    where = Where(name, "float64", "jit", jax.devices()[0].device_kind)
    return where.row("every leaf", error=0.0, bound=APPROXIMATION, status="ok", witness="values")


def _excuse(case: Case, name: str, report: Report, waived: str | None) -> str:
    """Why a rule may differ from autodiff of its body, or "" where it may not."""
    shown = [row for row in report.failures if DISAGREEMENT not in str(row.diagnosis)]  # as of other random numbers under x64
    if any(row.leaf.startswith(("output", "exact output")) for row in shown):
        return ""
    if waived is not None:
        return INTENDED + waived
    if _by_values_alone(report):
        return ""
    nearby = _right_nearby(case)
    shown = nearby and (case.on is not None or asked(only_at_kinks, *case[:5], None))
    if shown:
        return "convention: differs from its body at kinks or ties only"
    if shown is None:
        return f"{UNSHOWN}: right nearby, but its body has no values in float64 that show a kink where it differs"
    if case.on is not None:
        return ""
    off = asked(share_off, *case[:5], np.inf)
    if off <= APPROXIMATION and all(row.relative <= APPROXIMATION for row in report.failures):
        return f"{APPROXIMATE} in float64 off by {off:.2g} of the gradient of its body: one of the two is approximate"
    ours, theirs = (by_values(*case[:5], name, of) for of in ("rule", "body"))
    if ours.ok and theirs.failures:
        return "ok, by differences of values: autodiff of its body is wrong there, as of a rule that it calls"
    return ""


def _check(case: Case) -> Report:
    rule, body, args, kwargs, seed, on = case
    with own_options():
        dtypes = [v.dtype for v in jax.tree.leaves((args, kwargs)) if is_passed_on(v)]
        floats = [np.dtype(d).name for d in dtypes if jnp.issubdtype(d, jnp.floating)]
        dtypes = dict.fromkeys([floats[0] if floats else "float32", "float64"])
        how: dict[str, Any] = {"dtypes": tuple(dtypes), "transforms": ("jit",), "witnesses": (), "seed": seed, **kwargs}
        if on is None:
            return check_vjp(rule, *args, reference=body, **how)
        return check_vjp(on.whole(rule), *args, reference=on.whole(body), mesh=on.mesh, **how)


def _by_values_alone(report: Report) -> bool:
    """Whether its rows are differences of values, as autodiff does not run in the body."""
    return bool(report.rows) and report.rows[0].witness == "values"


def _excused(row: Row, why: str) -> Row:
    return row if row.ok else row._replace(ok=True, status="ok", note=why, diagnosis=None)


def _right_nearby(case: Case) -> bool:
    """Whether its gradient is right at points nearby without ties, zeros or round numbers."""
    for draw in range(2):
        rng = np.random.default_rng((case.seed, draw))

        def moved(v, rng=rng):
            if not is_passed_on(v) or not jnp.issubdtype(v.dtype, jnp.floating):
                return v
            v = np.asarray(v, np.float64 if v.dtype == np.float64 else np.float32)
            scale = float(np.abs(v).mean()) if v.size and np.isfinite(v).all() and np.any(v) else 1.0
            return (v + 0.01 * scale * rng.standard_normal(v.shape)).astype(v.dtype)

        args, kwargs = jax.tree.map(moved, (case.args, case.kwargs))
        if _check(case._replace(args=args, kwargs=kwargs)).failures:
            return False
    return True
