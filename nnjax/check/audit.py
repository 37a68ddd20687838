"""Audit: run any program once, and check every custom_vjp and custom_jvp rule that it passes through.

The program runs under `jax.disable_jit`, where the bodies of `jit`, `scan` and `cond` are Python, so that every rule is
met with the values it gets. Under `vmap` and `grad` a rule sees tracers: there its shapes are kept and values drawn.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..errors import describe
from .calls import positional
from .inside import Inside
from .omissions import words
from .options import expect_seed
from .report import Report, Row, Where, merged
from .rules import body_of, classes, rule_of, same_rule, source
from .subject import is_passed_on
from .vjp import check_vjp
from .witness.arbiter import APPROXIMATION, Question, asked, by_values, only_at_kinks, share_off

Rule = TypeVar("Rule")
UNSHOWN = "not proved"  # how a verdict begins that is neither right nor wrong
SAMPLES = 3  # calls of one rule that are checked: the first ones whose shapes differ, and further ones up to this number


class Call(NamedTuple):
    """A call of a rule; drawn: whether values had to be drawn; on: where inside `jax.shard_map` it was, if it was."""

    rule: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    drawn: bool
    on: Inside | None


class Heard(NamedTuple):
    """A rule, how many calls it got, and some of them; rules that a program makes anew at each call are one."""

    rule: Any
    calls: list[int]
    samples: list[Call]
    shapes: set[Any]


@contextmanager
def listening(heard: list[Heard]) -> Iterator[None]:
    """While inside, every call of a rule is noted."""
    originals = {cls: cls.__call__ for cls in classes()}
    known: dict[int, Heard] = {}

    def listener(cls):
        def call(self, *args, **kwargs):
            entry = known.get(id(self))
            if entry is None:
                entry = next((e for e in heard if same_rule(e.rule, self)), None)
                if entry is None:
                    heard.append(entry := Heard(self, [0], [], set()))
                if entry.rule is self:  # the others may go, and their ids come again
                    known[id(self)] = entry
            entry.calls[0] += 1
            given, named = positional(body_of(self) or self, args, kwargs)  # a keyword of its own may be one of check_vjp too
            on = Inside.now((given, named))
            signature = str((jax.tree.map(describe, (given, named)), on))
            if signature not in entry.shapes or len(entry.samples) < SAMPLES:
                entry.shapes.add(signature)
                drawn = any(isinstance(v, Tracer) for v in jax.tree.leaves((given, named)))
                entry.samples.append(Call(self, *_values(given, named, len(entry.samples), on), drawn, on))
            return originals[cls](self, *args, **kwargs)

        return call

    for cls in originals:
        setattr(cls, "__call__", listener(cls))  # noqa: B010  (an assignment confuses the type checker)
    try:
        yield
    finally:
        for cls in originals:
            setattr(cls, "__call__", originals[cls])  # noqa: B010


def _values(
    args: tuple[Any, ...], kwargs: dict[str, Any], seed: int, on: Inside | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same arguments, with drawn values in the place of tracers; inside `jax.shard_map`, those of all devices."""
    rng = np.random.default_rng(seed)

    def value(i, v):
        if not isinstance(v, Tracer):
            return v
        shape = v.shape if on is None else on.stacked(i, v.shape)
        if jnp.issubdtype(v.dtype, jax.dtypes.prng_key):
            return jax.random.split(jax.random.key(seed), shape) if shape else jax.random.key(seed)
        if jnp.issubdtype(v.dtype, jnp.floating):
            return rng.standard_normal(shape).astype(v.dtype)
        if jnp.issubdtype(v.dtype, jnp.complexfloating):
            return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(v.dtype)
        return rng.integers(0, 2, shape).astype(v.dtype)

    leaves, treedef = jax.tree.flatten((args, kwargs))
    return jax.tree.unflatten(treedef, [value(i, v) for i, v in enumerate(leaves)])


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


def audit(fn: Callable[..., Any], *args: Any, seed: int = 0, intended: Sequence[str] = (), **kwargs: Any) -> Report:
    """Check every custom_vjp and custom_jvp rule that fn(*args, **kwargs) runs through, on the values it meets.

    Each rule is held against its undecorated body, in the dtype of the call and in float64. A note for each says its
    name, file and line, the calls seen and the verdict: ok, FAULT, or convention, for a rule that differs from its body
    at a kink or tie only (`jax.nn.relu` at 0), shown by one-sided differences of values; "not checked" with what it or its body
    raised, and "not proved" where nothing could be compared. A report without any rule is not ok, nor is one with these two.
    Where autodiff does not run in a body (a while_loop, a callback), or differs from the rule, differences of the body's values
    in float64 decide (`nnjax.check.witness.values`), and the verdict says so.
    intended: names of rules whose gradient differs from their body's on purpose; `nnjax.intended` marks one in code.
    A rule met inside `jax.shard_map` is checked inside one, on drawn values; with check_vma=False, where JAX's own
    transposes of what communicates are no reference, such a rule is not checked, and the report says so.
    Raises TypeError where fn is not callable; what fn raises passes through.
    """
    if not callable(fn):
        raise TypeError(f"audit: fn must be a function, got {describe(fn)}; pass the function, then its arguments.")
    expect_seed("audit", seed)
    if isinstance(intended, str):
        raise TypeError(f"audit: intended must be names of rules, got {intended!r}; pass ({intended!r},).")
    heard: list[Heard] = []
    with jax.disable_jit(), listening(heard):
        try:
            fn(*args, **kwargs)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise  # from inside fn: its own
            raise TypeError(f"audit: fn cannot be called with these arguments: {error}; pass those that it takes.") from None
    reports, notes, missing = [], [], []
    for entry in heard:
        name, where = source(entry.rule)
        waived = "as `intended` says" if name in intended else getattr(entry.rule, "intended", None)
        report, verdict = _verdict(entry, seed, waived)
        notes.append(f"{name} ({where}): {entry.calls[0]} call{'s' if entry.calls[0] > 1 else ''}, {verdict}")
        reports.append(report._replace(notes=()))
        missing += report.missing
    if not heard:
        missing.append("any rule: the program ran through no custom_vjp or custom_jvp function")
    every = merged(reports)
    return Report(every.rows, tuple(missing), tuple(notes))


def _verdict(entry: Heard, seed: int, waived: str | None) -> tuple[Report, str]:
    """The rows of a rule's calls and the gravest verdict; waived: why its gradient differs on purpose, if it does."""
    name, where = source(entry.rule)
    reports, verdicts = [], set()
    for rule, args, kwargs, drawn, on in entry.samples:
        try:
            report = _check(rule, args, kwargs, seed, on)
        except Exception as error:
            report = Report((), (words(error),))
        if not report.rows:
            said = report.missing[0]
            if "axis name" in said or "no mesh axis" in said:
                said = "it communicates in a jax.shard_map without check_vma or over some axes alone: jax.grad is no reference"
            if said.startswith("check: no argument") or "no output that is real floating" in said:
                verdicts.add("no derivative to check")
                continue
            report = _by_values(rule, name, args, kwargs, seed) if on is None else Report(())
            if not report.rows and not report.missing:
                verdicts.add(f"not checked: {said}")
                reports.append(Report((), (f"{name} ({where}): {said}",)))
                continue
        if report.failures:
            excuse = _excuse(rule, name, report, args, kwargs, seed, on, waived)
            verdicts.add(excuse or "FAULT")
            if excuse.startswith(UNSHOWN):
                report = Report((), (f"{name} ({where}): {excuse}",))
            elif excuse:
                report = report._replace(rows=tuple(_excused(row, excuse) for row in report.rows))
        elif report.missing:
            verdicts.add(f"{UNSHOWN}: {report.missing[0]}")
        elif report.rows[0].witness == "values":
            verdicts.add("ok, by differences of values, as autodiff does not run in its body")
        else:
            verdicts.add("ok, on drawn values" if drawn else "ok")
        reports.append(report._replace(rows=tuple(row._replace(note=row.note or where) for row in report.rows)))
    order = ("FAULT", "not checked", UNSHOWN, "intended", "approximation", "convention", "no derivative", "ok")
    ranked = sorted(verdicts, key=lambda v: next(i for i, o in enumerate(order) if v.startswith(o)))
    return merged(reports), ranked[0]


def _excuse(rule, name: str, report: Report, args, kwargs, seed: int, on, waived: str | None) -> str:
    """Why a rule may differ from autodiff of its body, or "" where it may not."""
    if any(row.leaf.startswith(("output", "exact output")) for row in report.failures):
        return ""
    if waived is not None:
        return f"intended: its gradient is not its body's, {waived}"
    if report.rows[0].witness == "values":
        return ""
    nearby = _right_nearby(rule, args, kwargs, seed, on)
    shown = nearby and (on is not None or _asked(only_at_kinks, rule, args, kwargs, seed, None))
    if shown:
        return "convention: differs from its body at kinks or ties only"
    if shown is None:
        return f"{UNSHOWN}: right nearby, but its body has no values in float64 that show a kink where it differs"
    if on is not None:
        return ""
    off = _asked(share_off, rule, args, kwargs, seed, np.inf)
    if off <= APPROXIMATION:
        return f"approximation: in float64 off by {off:.2g} of the gradient of its body: one of the two is approximate"
    if _by_values(rule, name, args, kwargs, seed).ok and _by_values(rule, name, args, kwargs, seed, "body").failures:
        return "ok, by differences of values: autodiff of its body is wrong there, as of a rule that it calls"
    return ""


def _by_values(rule, name: str, args, kwargs, seed: int, of: Literal["rule", "body"] = "rule") -> Report:
    """Its gradient, or that by autodiff of its body, against differences of the body's values; a report of nothing where these
    cannot be had."""
    where = Where(name, "float64", "jit", jax.devices()[0].device_kind)
    return _asked(lambda q: by_values(q, getattr(q, of), where, seed), rule, args, kwargs, seed, Report(()))


def _asked(answer: Callable[[Question], Any], rule, args, kwargs, seed: int, unknown: Any) -> Any:
    """What values answer in float64; `unknown` where the body, or its autodiff, does not run there."""
    with _own_options(), jax.enable_x64(True):
        try:
            return answer(asked(rule, body_of(rule), args, kwargs, seed))
        except Exception:
            return unknown


@contextmanager
def _own_options() -> Iterator[None]:
    with jax.disable_jit(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _check(rule, args, kwargs, seed, on) -> Report:
    with _own_options():
        dtypes = [v.dtype for v in jax.tree.leaves((args, kwargs)) if is_passed_on(v)]
        floats = [np.dtype(d).name for d in dtypes if jnp.issubdtype(d, jnp.floating)]
        dtypes = dict.fromkeys([floats[0] if floats else "float32", "float64"])
        how: dict[str, Any] = {"dtypes": tuple(dtypes), "transforms": ("jit",), "witnesses": (), "seed": seed, **kwargs}
        if on is None:
            return check_vjp(rule, *args, **how)
        return check_vjp(on.whole(rule), *args, reference=on.whole(body_of(rule)), mesh=on.mesh, **how)


def _excused(row: Row, why: str) -> Row:
    return row if row.ok else row._replace(ok=True, status="ok", note=why, diagnosis=None)


def _right_nearby(rule, args, kwargs, seed: int, on) -> bool:
    """Whether its gradient is right at points nearby without ties, zeros or round numbers."""
    for draw in range(2):
        rng = np.random.default_rng((seed, draw))

        def moved(v, rng=rng):
            if not is_passed_on(v) or not jnp.issubdtype(v.dtype, jnp.floating):
                return v
            v = np.asarray(v, np.float64 if v.dtype == np.float64 else np.float32)
            scale = float(np.abs(v).mean()) if v.size and np.isfinite(v).all() and np.any(v) else 1.0
            return (v + 0.01 * scale * rng.standard_normal(v.shape)).astype(v.dtype)

        args_moved, kwargs_moved = jax.tree.map(moved, (args, kwargs))
        if _check(rule, args_moved, kwargs_moved, seed, on).failures:
            return False
    return True
