"""The cost of any gradient rule, compared with autodiff of its definition: `nnjax.cost` and `nnjax bench module:function`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ..check.auditing.listening import Heard, Title, listening
from ..check.auditing.rules import body_of
from ..check.calls import bound, expect_arguments
from ..check.subject import Leaves, Spec, sorted_outputs, split, vjp_of
from ..check.witness.rounding import random_like
from ..errors import describe
from .measure import compiled, interleaved, median_ratio, pairs_within, seconds


class Side(NamedTuple):
    """One gradient: value and cotangents, forward and backward, compiled as one program for the device.

    residual_bytes: what the forward keeps for the backward, without arguments. temp_bytes: of the compiled program.
    milliseconds: the median of its calls. None or NaN if JAX does not tell.
    """

    residual_bytes: int
    temp_bytes: int
    flops: float
    milliseconds: float


class Cost(NamedTuple):
    """A rule and autodiff of its definition; definition: None if that has no reverse mode, with the reason.

    time_ratio: of the rule to its definition, the median over interleaved pairs of calls.
    """

    name: str
    rule: Side
    definition: Side | None
    time_ratio: float
    reason: str = ""

    def __str__(self) -> str:
        sides = [side for side in (self.rule, self.definition) if side is not None]
        lines = [
            f"{self.name:16} {'rule':>14} {'definition' if self.definition else '':>14} {'ratio' if self.definition else '':>8}"
        ]
        for what, field, text in (
            ("residual bytes", "residual_bytes", ",d"), ("temporary bytes", "temp_bytes", ",d"), ("flops", "flops", ",.0f"),
            ("milliseconds", "milliseconds", ".3f"),
        ):  # fmt: skip
            values = [getattr(side, field) for side in sides]
            ratio = self.time_ratio if field == "milliseconds" else values[0] / values[-1] if values[-1] else float("nan")
            line = f"{what:16} " + " ".join(f"{value:>14{text}}" for value in values)
            lines.append(line + (f" {ratio:8.3f}" if self.definition else ""))
        if self.reason:
            lines.append(f"no definition to compare with: {self.reason}")
        return "\n".join(line.rstrip() for line in lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        sides = {"rule": self.rule._asdict(), "definition": self.definition and self.definition._asdict()}
        return {"name": self.name, **sides, "time_ratio": self.time_ratio, "reason": self.reason}


def cost(
    rule: Callable[..., Any], /, *args: Any, reference: Callable[..., Any] | None = None, budget_seconds: float = 2.0,
    **kwargs: Any,
) -> Cost:  # fmt: skip
    """The cost of the gradient by a rule at these arguments, compared with that by jax.vjp of its definition.

    rule: a custom_vjp or custom_jvp function, whose undecorated body is the definition unless `reference` is given, or any
    function with a reference. It measures the bytes of residuals, which the forward keeps for the backward (without
    arguments, which exist anyway), temporary memory and floating-point operations of the compiled program, and the time of a
    value with its cotangents, in interleaved pairs for about `budget_seconds`.

    Raises TypeError if rule is not a function, has no reference or no derivative, ValueError for a time that is not positive.
    """
    if not callable(rule):
        raise TypeError(f"cost: rule must be a function, got {describe(rule)}; pass the function, then its arguments.")
    if not budget_seconds > 0:
        raise ValueError(f"cost: budget_seconds must be positive, got {budget_seconds}; 2 is usual.")
    definition = reference or body_of(rule)
    name = getattr(rule, "__name__", type(rule).__name__)
    if definition is None:
        raise TypeError(f"cost: {name} is not a custom_vjp or custom_jvp function; pass reference=, in plain jax.numpy.")
    for f in (rule, definition):
        expect_arguments("cost", f, args, kwargs)
    (rule, definition), args, kwargs, names = bound(rule, definition, args, kwargs)
    spec, diff, other = split(args, kwargs, names)
    cts = _cotangents(rule, spec, diff, other)
    ours = _program(rule, spec, diff, other, cts)
    try:
        theirs = _program(definition, spec, diff, other, cts)
    except Exception as error:
        times = [seconds(ours.run) for _ in range(pairs_within(ours.run, budget_seconds))]
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return Cost(name, _side(rule, spec, diff, other, ours, times), None, float("nan"), reason)
    a, b = interleaved(ours.run, theirs.run, pairs_within(theirs.run, budget_seconds))
    sides = _side(rule, spec, diff, other, ours, a), _side(definition, spec, diff, other, theirs, b)
    return Cost(name, *sides, median_ratio(a, b))


def costs(fn: Callable[[], Any], budget_seconds: float, said: Callable[[Title, Cost | str], None]) -> int:
    """Report the cost of every rule that fn() runs through, at its first call, and return their number."""
    heard: list[Heard] = []
    with listening(heard):
        fn()
    for entry in heard:
        try:
            args, kwargs = next(entry.samples[0].filled(0))
            found: Cost | str = cost(entry.rule, *args, budget_seconds=budget_seconds, **kwargs)
        except Exception as error:  # a rule without a derivative, or one that does not run alone
            found = (str(error).splitlines() or [type(error).__name__])[0]
        said(entry.title, found)
    return len(heard)


def _cotangents(f: Callable[..., Any], spec: Spec, diff: Leaves, other: Leaves) -> Leaves:
    def value(diff, other):
        args, kwargs = spec.merge(diff, other)
        return sorted_outputs(f(*args, **kwargs))[0]

    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(value, diff, other)
    if not shapes:
        raise TypeError("cost: the rule has no output that is real floating point; return the differentiable value.")
    return [random_like(rng, s.shape, s.dtype) for s in shapes]


def _whole(f: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    """The value and cotangents of f, as one function of (diff, other, cotangents)."""
    run = vjp_of(f, spec)

    def whole(diff, other, cts):
        out = run(diff, other, cts)
        return out.floats, out.cotangents

    return whole


def _program(f, spec: Spec, diff: Leaves, other: Leaves, cts: Leaves):
    return compiled(_whole(f, spec), tuple(jax.device_put((list(diff), list(other), list(cts)))))


def sides(
    rule: Callable[..., Any], definition: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Callable[..., Any], Callable[..., Any], Any]:
    """(value and cotangents by the rule, the same by jax.vjp of its definition, the arguments of both)."""
    (rule, definition), args, kwargs, names = bound(rule, definition, args, kwargs)
    spec, diff, other = split(args, kwargs, names)
    return _whole(rule, spec), _whole(definition, spec), (list(diff), list(other), _cotangents(rule, spec, diff, other))


def _side(f, spec: Spec, diff: Leaves, other: Leaves, program, times) -> Side:
    return Side(residual_bytes(f, spec, diff, other), program.temp_bytes, program.flops, float(np.median(times)) * 1e3)


def residual_bytes(f: Callable[..., Any], spec: Spec, diff: Leaves, other: Leaves) -> int:
    """Bytes that jax.vjp of f keeps between forward and backward, each array once, without arguments."""

    def kept(diff, other):
        def value(diff):
            args, kwargs = spec.merge(diff, other)
            return sorted_outputs(f(*args, **kwargs))[0]

        return jax.tree.leaves(jax.vjp(value, diff)[1])

    jaxpr = jax.make_jaxpr(kept)(list(diff), list(other)).jaxpr
    arguments = {*jaxpr.invars, *jaxpr.constvars}
    variables = {v for v in jaxpr.outvars if not hasattr(v, "val") and v not in arguments}
    return sum(int(np.prod(v.aval.shape)) * v.aval.dtype.itemsize for v in variables)
