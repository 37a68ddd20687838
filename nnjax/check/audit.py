"""Audit: run any program once, and check every custom_vjp and custom_jvp rule that it passes through.

The program runs under `jax.disable_jit`, where the bodies of `jit`, `scan` and `cond` are Python, so that every rule is
met with the values it gets. Under `vmap` and `grad` a rule sees tracers: there its shapes are kept and values drawn.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..errors import describe
from .calls import positional
from .inside import Inside
from .omissions import words
from .options import expect_seed
from .report import Report, Row, merged
from .subject import is_passed_on
from .vjp import check_vjp

SAMPLES = 3  # calls of one rule that are checked: the first ones whose shapes differ, and further ones up to this number
RULES = (jax.custom_vjp, jax.custom_jvp)


class Heard(NamedTuple):
    """A rule, the calls it got, and arguments of some of them; drawn: whether values had to be drawn; on: where inside
    `jax.shard_map` it was called, if it was.
    """

    rule: Any
    calls: list[int]
    samples: list[tuple[tuple[Any, ...], dict[str, Any], bool, Inside | None]]
    shapes: set[Any]


@contextmanager
def listening(heard: dict[int, Heard]) -> Iterator[None]:
    """While inside, every call of a rule is noted."""
    originals = {cls: cls.__call__ for cls in RULES}

    def listener(cls):
        def call(self, *args, **kwargs):
            entry = heard.setdefault(id(self), Heard(self, [0], [], set()))
            entry.calls[0] += 1
            given, named = positional(self.fun, args, kwargs)  # a keyword of its own may be one of check_vjp too
            on = Inside.now((given, named))
            signature = str((jax.tree.map(describe, (given, named)), on))
            if signature not in entry.shapes or len(entry.samples) < SAMPLES:
                entry.shapes.add(signature)
                drawn = any(isinstance(v, Tracer) for v in jax.tree.leaves((given, named)))
                args_kept, kwargs_kept = _values(given, named, len(entry.samples), on)
                entry.samples.append((args_kept, kwargs_kept, drawn, on))
            return originals[cls](self, *args, **kwargs)

        return call

    for cls in RULES:
        setattr(cls, "__call__", listener(cls))  # noqa: B010  (an assignment confuses the type checker)
    try:
        yield
    finally:
        for cls in RULES:
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
        return rng.integers(0, 2, shape).astype(v.dtype)

    leaves, treedef = jax.tree.flatten((args, kwargs))
    return jax.tree.unflatten(treedef, [value(i, v) for i, v in enumerate(leaves)])


def audit(fn: Callable[..., Any], *args: Any, seed: int = 0, **kwargs: Any) -> Report:
    """Check every custom_vjp and custom_jvp rule that fn(*args, **kwargs) runs through, on the values it meets.

    Each rule is held against its undecorated body, in the dtype of the call and in float64. A note for each says its
    name, file and line, the calls seen and the verdict: ok, FAULT, or convention, for a rule that differs from its body
    at a kink or tie only (`jax.nn.relu` at 0), which is not a fault; "not checked" with what it or its body raised, and "not
    proved" where nothing could be compared. A report without any rule is not ok, nor is one with these two.
    A rule met inside `jax.shard_map` is checked inside one, on drawn values; with check_vma=False, where JAX's own
    transposes of what communicates are no reference, such a rule is not checked, and the report says so.
    Raises TypeError where fn is not callable; what fn raises passes through.
    """
    if not callable(fn):
        raise TypeError(f"audit: fn must be a function, got {describe(fn)}; pass the function, then its arguments.")
    expect_seed("audit", seed)
    heard: dict[int, Heard] = {}
    with jax.disable_jit(), listening(heard):
        try:
            fn(*args, **kwargs)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise  # from inside fn: its own
            raise TypeError(f"audit: fn cannot be called with these arguments: {error}; pass those that it takes.") from None
    reports, notes, missing = [], [], []
    for entry in heard.values():
        report, verdict = _verdict(entry, seed)
        name, where = _source(entry.rule)
        notes.append(f"{name} ({where}): {entry.calls[0]} call{'s' if entry.calls[0] > 1 else ''}, {verdict}")
        reports.append(report._replace(notes=()))
        missing += report.missing
    if not heard:
        missing.append("any rule: the program ran through no custom_vjp or custom_jvp function")
    every = merged(reports)
    return Report(every.rows, tuple(missing), tuple(notes))


def _source(rule: Any) -> tuple[str, str]:
    f = inspect.unwrap(rule.fun)
    code = getattr(f, "__code__", None)
    where = f"{code.co_filename}:{code.co_firstlineno}" if code else "source unknown"
    return getattr(rule, "__name__", getattr(f, "__name__", "rule")), where


def _verdict(entry: Heard, seed: int) -> tuple[Report, str]:
    name, where = _source(entry.rule)
    reports, verdicts = [], set()
    for args, kwargs, drawn, on in entry.samples:
        try:
            report = _check(entry.rule, args, kwargs, seed, on)
        except Exception as error:
            report = Report((), (words(error),))
        if not report.rows:
            said = report.missing[0]
            if "axis name" in said or "no mesh axis" in said:
                said = "it communicates in a jax.shard_map without check_vma or over some axes alone: jax.grad is no reference"
            nothing = said.startswith("check: no argument") or "no output that is real floating" in said
            verdicts.add("no derivative to check" if nothing else f"not checked: {said}")
            if not nothing:
                reports.append(Report((), (f"{name} ({where}): {said}",)))
            continue
        if report.failures and _only_at_kinks(entry.rule, report, args, kwargs, seed, on):
            verdicts.add("convention: differs from its body at kinks or ties only")
            report = report._replace(rows=tuple(_excused(row) for row in report.rows))
        elif report.failures:
            verdicts.add("FAULT")
        elif report.missing:
            verdicts.add(f"not proved: {report.missing[0]}")
        else:
            verdicts.add("ok, on drawn values" if drawn else "ok")
        reports.append(report._replace(rows=tuple(row._replace(note=row.note or where) for row in report.rows)))
    order = ("FAULT", "not checked", "not proved", "convention", "no derivative", "ok")
    ranked = sorted(verdicts, key=lambda v: next(i for i, o in enumerate(order) if v.startswith(o)))
    return merged(reports), ranked[0]


def _check(rule, args, kwargs, seed, on) -> Report:
    with jax.disable_jit(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        dtypes = [v.dtype for v in jax.tree.leaves((args, kwargs)) if is_passed_on(v)]
        floats = [np.dtype(d).name for d in dtypes if jnp.issubdtype(d, jnp.floating)]
        dtypes = dict.fromkeys([floats[0] if floats else "float32", "float64"])
        how: dict[str, Any] = {"dtypes": tuple(dtypes), "transforms": ("jit",), "witnesses": (), "seed": seed, **kwargs}
        if on is None:
            return check_vjp(rule, *args, **how)
        return check_vjp(on.whole(rule), *args, reference=on.whole(rule.fun), mesh=on.mesh, **how)


def _excused(row: Row) -> Row:
    return row if row.ok else row._replace(ok=True, status="ok", note="a convention at kinks or ties", diagnosis=None)


def _only_at_kinks(rule, report: Report, args, kwargs, seed: int, on) -> bool:
    """Whether the rule's value is right, and its gradient is at points nearby without ties, zeros or round numbers."""
    if any(row.leaf.startswith(("output", "exact output")) for row in report.failures):
        return False
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
