"""Audit: run any program once, and check every custom_vjp and custom_jvp rule that it runs through.

The program runs under `jax.disable_jit`. The bodies of `jit`, `scan` and `cond` are then Python, so every rule can be
seen with its actual values.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import jax

from ...errors import describe
from ..options import expect_seed
from ..report import Report, merged
from ..searching.search import expect_search, searched
from .listening import Call, Heard, Title, listening
from .rules import rule_of
from .verdict import UNSHOWN, VERDICTS, Case, fault, verdict_on

Rule = TypeVar("Rule")
NOTHING: Mapping[Any, Callable[..., Any]] = MappingProxyType({})


def intended(rule: Rule, why: str) -> Rule:
    """The same rule, marked as one whose gradient differs from its body's on purpose: an audit waives it, and says why.

    Raises TypeError if rule is not a custom_vjp or custom_jvp function, or if why is not a sentence.
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
    """Check every custom_vjp and custom_jvp rule that fn(*args, **kwargs) runs through, on the values that it gets.

    Each rule is compared with its undecorated body, in the dtype of the call and in float64. A note for each gives its name,
    file and line, the number of calls and the verdict: ok; FAULT; convention, for a rule that differs from its body only at a
    kink or tie (`jax.nn.relu` at 0), as one-sided differences of values show; "not checked", with the error that it or its
    body raised; or "not proved" if nothing could be compared. A report without any rule, or with one of the last two, is not
    ok.
    If autodiff does not run in a body (a while_loop, a callback), or differs from the rule, differences of the body's values
    in float64 decide (`nnjax.check.witness.values`), and the verdict says so.
    intended: names of rules whose gradient differs from their body's on purpose; `nnjax.intended` marks one in code.
    references: {rule or its name: the same function in plain jax.numpy}, for bodies that autodiff cannot differentiate.
    search: also check each rule that is right here at hostile inputs, for 25 seconds or this many, as `check_vjp` does.
    Under `vmap` and `grad` the rule gets the values that the program has there. If there are none, as in code that runs only
    under jit, values are drawn, in several ways, and the verdict says so.
    A rule inside `jax.shard_map` is checked inside one, on drawn values. With check_vma=False JAX's own transposes of
    collectives are not a reference; such a rule is not checked, and the report says so.
    Raises TypeError if fn is not callable; errors of fn pass through.
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
    """The same, calling said(found) for each rule as soon as it is checked."""
    heard: list[Heard] = []
    try:
        try:
            with jax.disable_jit(), listening(heard):
                fn(*args, **kwargs)
        except Exception as error:
            if not any(word in str(error).lower() for word in ("disable_jit", "disable jit")):
                raise
            heard.clear()  # a scan of no steps, or a program compiled ahead, runs only under jit: listen while it is traced
            with listening(heard):
                fn(*args, **kwargs)
    except TypeError as error:
        if error.__traceback__ is None or error.__traceback__.tb_next is not None:
            raise  # raised inside fn
        raise TypeError(f"audit: fn must take the given arguments, but {error}; pass those that it takes.") from None
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
    """What an audit says about one rule."""

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
    """The rows of a rule's calls and the gravest verdict; seconds: for a search at other inputs, if all rows are right."""
    name, where, _ = entry.title
    if entry.rule is None or not entry.samples:
        said = next(iter(entry.problems), "it closes over values that were being traced")
        verdict = f"not checked: {said}"
        return Found(entry.title, entry.calls[0], verdict, Report((), (f"{name} ({where}): {verdict}",)))
    waived = "as `intended` says" if name in intended else getattr(entry.rule, "intended", None)
    plain = next((g for key, g in references.items() if key == name or rule_of(key) is entry.rule), None)
    calls = [call for call in entry.samples if not call.empty]
    if not calls:
        verdict = f"{UNSHOWN}: every argument is empty, so no number was compared"
        return Found(entry.title, entry.calls[0], verdict, Report((), (f"{name} ({where}): {verdict}",)))
    judged = [_judged(call, entry.title, seed, waived, plain) for call in calls]
    ranked = sorted((v for _, v in judged), key=lambda v: next(i for i, o in enumerate(VERDICTS) if v.startswith(o)))
    report, verdict = merged(report._replace(notes=()) for report, _ in judged), ranked[0]
    if seconds and verdict.startswith(("ok", "convention")) and calls[0].on is None:
        args, kwargs = next(calls[0].filled(seed))
        rows = searched(entry.rule, plain or calls[0].body, args, kwargs, name, seed, seconds).rows
        report = report._replace(rows=(*report.rows, *rows))
        verdict = fault(report) if rows else verdict
    return Found(entry.title, entry.calls[0], verdict, report)


def _judged(call: Call, title: Title, seed: int, waived: str | None, plain: Any) -> tuple[Report, str]:
    """The rows of one call and its verdict. If its values are drawn, the best of all draws: the rule may not be meant for
    others."""
    report, verdict = Report(()), ""
    for args, kwargs in call.filled(seed):
        case = Case(call.rule, plain or call.body, args, kwargs, seed, call.on, call.mapped)
        report, verdict = verdict_on(case, title, waived)
        if not verdict.startswith((UNSHOWN, "not checked", "FAULT")):
            break
    return report, verdict + (", on drawn values" if call.drawn else "")
