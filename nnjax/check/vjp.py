"""The entry points check_vjp, check_pair and compare_gradients: a function under test is compared with its definition."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ..errors import describe
from .auditing.rules import body_of
from .calls import argument_names, bound, expect_arguments, in_own_precision, positional
from .diagnosis.mesh_faults import Sharding
from .matrix import run_matrix
from .omissions import NOT_RUN
from .options import options
from .pair import pair_run, paired
from .report import Report
from .searching.search import expect_search, searched, with_search
from .subject import Leaves, Spec, Subject, split, vjp_of
from .witness.arbiter import BY_VALUES, by_values
from .witness.oracle import Budget, budgets, norms, on_host

EARLY = 1  # draws
IN_OWN = "its definition does not run in float64, so it is computed in"


def check_vjp(
    f: Callable[..., Any], /, *args: Any, reference: Callable[..., Any] | None = None, dtypes: Sequence[str] | None = None,
    transforms: Sequence[str] | None = None, devices: Sequence[Any] | None = None, compute_dtype: str | None = None,
    seed: int = 0, full: bool = False, witnesses: Sequence[str] | None = None, mesh: Mesh | None = None,
    search: bool | float = False, **kwargs: Any,
) -> Report:  # fmt: skip
    """Compare the gradient rule of f with jax.vjp of its definition, at these arguments.

    f is a `jax.custom_vjp` function, whose undecorated body is the definition unless `reference` is given, or any function
    with an explicit `reference` of the same arguments. Arguments are pytrees, by position or by keyword. Floating-point
    arrays have a derivative, and so has a Python float, as in jax.grad; arrays of integers, flags and keys are passed on.
    Everything else is static and reaches f unchanged: Python ints and flags, strings, dtypes, functions, enum members, None,
    and what `nondiff_argnums` names. (Close over a float that f needs as it is.) The other options, such as `search`, are
    those of `check_layer`.
    If a definition does not run in bfloat16 or float16, a note says so, unless dtypes are named; if it does not run in
    float64, it is computed in the dtype of its arguments. mesh: the devices, if f communicates. If autodiff does not run in
    the definition (a while_loop, a callback), f is compared with differences of its values. An error of f in a dtype or
    transform is a failed row; an error of the definition is reported as not compared. Raises TypeError if there is no
    reference, no differentiable argument, or no differentiable output.
    """
    if not callable(f):
        raise TypeError(f"check_vjp: f must be a function, got {describe(f)}; pass the function, then its arguments.")
    definition = reference or body_of(f)
    name = getattr(f, "__name__", type(f).__name__)
    if definition is None:
        raise TypeError(
            f"check_vjp: {name} needs a reference, as it is not a jax.custom_vjp function; "
            "pass reference=, the same function in plain jax.numpy."
        )
    for g in (f, definition):
        expect_arguments("check_vjp", g, args, kwargs)
    seconds = expect_search(search, mesh)
    values = functools.partial(by_values, f, definition, args, kwargs, seed, name)
    call, own = in_own_precision(bound(f, definition, args, kwargs))
    (f, definition), args, kwargs, names = call
    spec, diff, other = split(args, kwargs, names)
    _expect_alike(name, f, definition, spec, diff, other)
    subject = Subject(
        case=name, spec=spec, definition=definition, reference=vjp_of(definition, spec), hand=vjp_of(f, spec),
        rematerialised=vjp_of(f, spec, jax.checkpoint), sharding=None if mesh is None else Sharding(mesh),
    )  # fmt: skip
    report = run_matrix(subject, diff, other, options(dtypes, transforms, devices, compute_dtype, seed, full, witnesses))
    if own:
        said = f"{name}: {IN_OWN} {own}"
        report = report._replace(notes=(said, *report.notes))
    report = report if mesh is not None else _arbitrated(report, name, values)
    if report.failures or not seconds:
        return report
    return with_search(report, searched(f, definition, args, kwargs, name, seed, seconds), name)


def _arbitrated(report: Report, name: str, values: Callable[..., Report]) -> Report:
    """The report, with differences of values instead of rows for which autodiff does not run in the definition, and a note on
    which of the two is wrong where they differ."""
    if not report.rows and any(NOT_RUN in said for said in report.missing):
        found = values()
        said = f"{name}: compared with {BY_VALUES}, as autodiff does not run in its definition"
        return found._replace(notes=(*report.notes, said)) if found.rows or found.missing else report
    if report.failures and all(row.witness == "taylor" or row.transform in ("vmap", "scan") for row in report.failures):
        said = f"{name}: right at your inputs; what fails (the Taylor remainder, vmap, scan) uses points near them"
        return report._replace(notes=(*report.notes, said))
    if any(row.transform == "jit" and row.dtype == "float64" for row in report.failures):
        ours, theirs = values(), values("body")
        if ours.ok and theirs.failures:
            said = f"{name}: differences of values agree with the rule: autodiff of its definition is wrong"
            return report._replace(notes=(*report.notes, said))
    return report


def _expect_alike(
    name: str, f: Callable[..., Any], definition: Callable[..., Any], spec: Spec, diff: Leaves, other: Leaves
) -> None:
    """Raise ValueError if f and its definition return different shapes or dtypes, TypeError if f has no rule yet.

    If one of them cannot be called at all, the rows report it.
    """

    def returns(g):
        def call(diff, other):
            args, kwargs = spec.merge(diff, other)
            return g(*args, **kwargs)

        return jax.tree.map(describe, jax.eval_shape(call, diff, other))

    try:
        ours, theirs = returns(f), returns(definition)
    except AttributeError as error:
        if "defvjp" in str(error) or "defjvp" in str(error):
            raise TypeError(f"check_vjp: {name} has no rule yet; give it one with {name}.defvjp(fwd, bwd).") from None
        return
    except Exception:
        return
    if ours != theirs:
        raise ValueError(
            f"check_vjp: {name} and its reference must return the same shapes and dtypes, got {ours} and {theirs}; "
            "pass a reference for the same function."
        )


def check_pair(
    fwd: Callable[..., Any], bwd: Callable[..., Any], /, *args: Any, reference: Callable[..., Any],
    dtypes: Sequence[str] | None = None, transforms: Sequence[str] | None = None, devices: Sequence[Any] | None = None,
    compute_dtype: str | None = None, seed: int = 0, full: bool = False, witnesses: Sequence[str] | None = None,
    mesh: Mesh | None = None, search: bool | float = False, **kwargs: Any,
) -> Report:  # fmt: skip
    """Compare a bare pair, as `jax.custom_vjp.defvjp` takes it, with jax.vjp of `reference`, at these arguments.

    fwd(*args) -> (y, residuals); bwd(residuals, ct_y) -> one cotangent for each argument, None for an argument without a
    derivative, such as a static one. Keyword arguments are passed by position, as JAX does. In addition to what `check_vjp`
    compares, residuals must be arrays and every cotangent must have the shape, dtype and tree of its argument. The options
    are those of `check_vjp`.
    """
    for what, f in (("fwd", fwd), ("bwd", bwd), ("reference", reference)):
        if not callable(f):
            raise TypeError(f"check_pair: {what} must be a function, got {describe(f)}; pass fwd, bwd, then the arguments.")
    for f in (fwd, reference):
        expect_arguments("check_pair", f, args, kwargs)
    seconds = expect_search(search, mesh)
    args, kwargs = positional(fwd, args, kwargs)
    spec, diff, other = split(args, kwargs, argument_names(reference, len(args)))
    hand, problems = pair_run(fwd, bwd, spec)

    name = getattr(fwd, "__name__", "pair")
    subject = Subject(
        case=name, spec=spec, definition=reference, reference=vjp_of(reference, spec), hand=hand,
        rematerialised=vjp_of(paired(fwd, bwd), spec, jax.checkpoint), problems=problems,
        sharding=None if mesh is None else Sharding(mesh),
    )  # fmt: skip
    report = run_matrix(subject, diff, other, options(dtypes, transforms, devices, compute_dtype, seed, full, witnesses))
    if report.failures or not seconds:
        return report
    return with_search(report, searched(paired(fwd, bwd), reference, args, kwargs, name, seed, seconds), name)


class Difference(NamedTuple):
    """One leaf's gradient compared with the reference, relative to the size of the truth; `budget`: the allowed difference."""

    leaf: str
    relative: float
    budget: float
    scale: float  # the 2-norm of the truth

    @property
    def ok(self) -> bool:
        """Whether the difference is within the budget."""
        return self.relative <= self.budget


def compare_gradients(
    hand: Callable[..., Any], reference: Callable[..., Any], params: Any, *batch: Any, seed: int = 0, early: bool = False
) -> list[Difference]:
    """The difference of two functions with the signature of `value_and_grad`, leaf by leaf, at these parameters and this batch.

    Both are called as f(params, *batch) -> (value, grads), jitted, in the dtype of params. The difference |hand - reference|
    is in the 2-norm, relative to that of the truth; the budget is that of `nnjax.check.witness.oracle`, plus the error of
    the reference itself. The value is compared like a leaf.
    early: if every leaf is within what EARLY draws allow, take no more draws, each of which also runs the reference in
    float64. More draws only allow more, so a gradient that passes early would also pass later; its budget is smaller.
    """
    spec, diff, other = split((params, *batch), {}, ("params", "x", "labels"))

    def flat(f):
        return jax.jit(lambda diff, other, linear: jax.tree.leaves(f(*spec.merge(diff, other)[0])))

    run = flat(reference)
    names = ["value", *(name for name in spec.names if name.startswith("params"))]
    ours = on_host(flat(hand)(diff, other, []))

    def compared(draws: int | None) -> list[Difference]:
        found = budgets(run, diff, other, [], diff[0].dtype, seed, draws=draws)
        return [_difference(*leaf) for leaf in zip(names, ours, found)]

    differences = compared(EARLY if early else None)
    return differences if not early or all(d.ok for d in differences) else compared(None)


def _difference(name: str, h: np.ndarray, budget: Budget) -> Difference:
    size = float(budget.size[0])
    apart = float(norms(h - budget.reference)[0])
    allowed = float(budget.bound[0] + norms(budget.reference - budget.truth)[0])
    scale = size if size > 0 else 1.0
    return Difference(name, apart / scale, allowed / scale, size)
