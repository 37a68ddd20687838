"""A bare pair (fwd, bwd) as a function of flat lists, and what is wrong with the shapes that it returns."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import describe
from .subject import FLOAT0, Leaves, Outputs, Problems, Run, Spec, is_float, is_passed_on, sorted_outputs


def with_cotangents(y: Any, cts: Any) -> Any:
    """A tree like y with these cotangents, float0 where an output has none."""
    pool = iter(cts)
    return jax.tree.map(lambda v: next(pool) if is_float(v) else np.zeros(jnp.shape(v), FLOAT0), y)


def pair_run(fwd: Callable[..., Any], bwd: Callable[..., Any], spec: Spec) -> tuple[Run, Problems]:
    """run(diff, other, cts) -> Outputs by a hand-written pair, and the problems found in tracing it.

    fwd(*args, **kwargs) -> (y, residuals); bwd(residuals, ct_y) -> one cotangent for each positional argument, None for zero
    or for an argument without a derivative.
    """
    problems = Problems()

    def report(leaf, kind, detail):
        if (leaf, kind) not in [p[:2] for p in problems.found]:
            problems.report(leaf, kind, detail)

    def run(diff, other, cts):
        args, kwargs = spec.merge(diff, other)
        returned = fwd(*args, **kwargs)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise TypeError(f"check: fwd must return (y, residuals), got {describe(returned)}; return both, as a tuple.")
        y, residuals = returned
        floats, others = sorted_outputs(y)
        if list(map(describe, floats)) != list(map(describe, cts)):
            came, due = (", ".join(map(describe, values)) or "nothing" for values in (floats, cts))
            report("output", "wrong_primal", f"fwd returns {came}, but the reference returns {due}")
            raise ValueError("fwd and the reference return different outputs")
        for r in jax.tree.leaves(residuals):
            if not hasattr(r, "dtype"):
                report(
                    "residuals",
                    "wrong_dtype",
                    f"a residual is a {type(r).__name__}, not an array: lax.scan cannot "
                    "carry it; close over it, or keep it as an array",
                )
        ct_args = bwd(residuals, with_cotangents(y, cts))
        return Outputs(floats, others, _aligned(spec, args, diff, ct_args, report))

    return run, problems


def paired(fwd: Callable[..., Any], bwd: Callable[..., Any]) -> Callable[..., Any]:
    """The function that has the pair as its rule. Static arguments are closed over, and have no cotangent."""

    def function(*args):
        leaves, treedef = jax.tree.flatten(args)
        moving = jax.tree.unflatten(treedef, [v if is_passed_on(v) else None for v in leaves])

        def whole(moving):
            pool = iter(jax.tree.leaves(moving))
            return jax.tree.unflatten(treedef, [next(pool) if is_passed_on(v) else v for v in leaves])

        @jax.custom_vjp
        def rule(*moving):
            return fwd(*whole(moving))[0]

        def mirrored(residuals, ct_y):
            ct_args = bwd(residuals, ct_y)
            if not isinstance(ct_args, tuple) or len(ct_args) != len(moving):
                return ct_args  # JAX's error says what is wrong
            return tuple(ct if jax.tree.leaves(part) else None for ct, part in zip(ct_args, moving))

        rule.defvjp(lambda *moving: fwd(*whole(moving)), mirrored)
        return rule(*moving)

    return function


def _aligned(spec, args, diff, ct_args, report) -> Leaves:
    """The cotangents in the order of the leaves with a derivative; an unusable cotangent counts as zero."""
    numbered = jax.tree.unflatten(spec.treedef, _numbers(spec))[0]
    found: dict[int, Any] = {}
    if not isinstance(ct_args, tuple) or len(ct_args) != len(args):
        came = f"{len(ct_args)} entries" if isinstance(ct_args, tuple) else describe(ct_args)
        report("cotangents", "wrong_shape", f"bwd must return a tuple of {len(args)}, one for each argument, got {came}")
    else:
        for number, ct in zip(numbered, ct_args):
            _match(number, ct, found, report, spec.names)
    aligned = []
    for i, x in enumerate(diff):
        ct = found.get(i)
        if ct is not None and jnp.shape(ct) != jnp.shape(x):
            detail = f"the cotangent has shape {jnp.shape(ct)}, its primal {jnp.shape(x)}: is a broadcast's sum missing?"
            report(spec.names[i], "wrong_shape", detail)
            ct = None
        elif ct is not None and jnp.asarray(ct).dtype != x.dtype:
            report(spec.names[i], "wrong_dtype", f"the cotangent is {jnp.asarray(ct).dtype}, its primal {x.dtype}")
        aligned.append(jnp.zeros_like(x) if ct is None else jnp.asarray(ct))
    return aligned


def _numbers(spec) -> list["_Number"]:
    count = iter(range(len(spec.kinds)))
    return [_Number(next(count)) if kind == "diff" else _Number(-1) for kind in spec.kinds]


class _Number:
    """The index of a leaf among those with a derivative, or -1."""

    def __init__(self, i):
        self.i = i


def _match(number, ct, found, report, names) -> None:
    """Walk the trees of arguments and cotangents together. None in the latter means zeros."""
    if ct is None or number is None:
        if number is None and ct is not None:
            report("cotangents", "wrong_shape", f"None in the arguments has a cotangent, {describe(ct)}: return None there")
        return
    if isinstance(number, _Number):
        if number.i >= 0:
            if jax.tree.structure(ct) == jax.tree.structure(0):
                found[number.i] = ct
            else:
                report(names[number.i], "wrong_shape", f"the cotangent is a {describe(ct)}, its primal an array")
        return
    inner, treedef = jax.tree_util.tree_flatten(number, is_leaf=lambda v: v is not number)
    try:
        parts = treedef.flatten_up_to(ct)
    except ValueError as error:
        first = str(error).splitlines()[0]
        report("cotangents", "wrong_shape", f"the tree of cotangents must mirror that of the arguments: {first}")
        return
    for n, c in zip(inner, parts):
        _match(n, c, found, report, names)
