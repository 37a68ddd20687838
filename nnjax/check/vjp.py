"""The entry points: check_layer, check_vjp and check_pair, each a function under test held against its definition."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from ..errors import describe
from ..layer import Layer, as_custom_vjp, expect_layer, plain
from .calls import argument_names, bound, expect_arguments, in_own_precision, positional
from .diagnosis.localise import localise
from .diagnosis.mesh_faults import Sharding
from .matrix import run_matrix
from .options import DTYPES, EVERYWHERE, Options, options
from .pair import pair_run, paired
from .report import Report
from .rules import body_of
from .sharding import check_on_mesh, expect_sharding
from .subject import Leaves, Spec, Subject, layer_owner, split, vjp_of
from .witness.arbiter import by_values
from .witness.oracle import budgets, norms, on_host


@functools.lru_cache(maxsize=256)
def _shared(apply: Callable[..., Any], spec: Spec) -> dict[Any, Any]:
    """What is compiled for a definition: layers that differ in fwd and bwd alone (mutants) have it in common."""
    return {}


@functools.lru_cache(maxsize=64)
def layer_subject(layer: Layer, spec: Spec) -> Subject:
    """One Subject for each layer and kind of arguments, so that checking it again compiles nothing."""

    def fwd(params, x, key):
        return layer.fwd(params, x, key=key)

    def bwd(residuals, ct_y):
        returned = layer.bwd(residuals, ct_y)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise TypeError(
                f"check: bwd of {layer.name} must return (ct_params, ct_x), got {describe(returned)}; return both, as a tuple."
            )
        return (*returned, None)

    def apply(params, x, key):
        return layer.apply(params, x, key=key)

    hand, problems = pair_run(fwd, bwd, spec)
    remat = vjp_of(as_custom_vjp(layer), spec, jax.checkpoint)
    slow = plain(layer)
    return Subject(
        case=layer.name, spec=spec, definition=apply, reference=vjp_of(apply, spec), hand=hand, rematerialised=remat,
        problems=problems, shared=_shared(layer.apply, spec), owner=lambda leaf: layer_owner(layer, leaf), layer=layer,
        plain=None if slow is layer else layer_subject(slow, spec),
    )  # fmt: skip


def crowded() -> bool:
    """Whether compiled programs take up half of the memory maps that Linux gives a process: 65,530 unless it is told otherwise.

    A program takes some twenty, and a loop that runs eagerly is compiled anew each time.
    """
    try:
        most = int(Path("/proc/sys/vm/max_map_count").read_text())
        return Path("/proc/self/maps").read_bytes().count(b"\n") > most // 2
    except (OSError, ValueError):
        return False  # other systems have no such limit


def forget() -> None:
    """Drop every program that was compiled."""
    layer_subject.cache_clear()
    _shared.cache_clear()
    jax.clear_caches()


def check_layer(
    layer: Layer, params: Any, x: Any, *, key: Any = None, dtypes: Sequence[str] | None = None,
    transforms: Sequence[str] | None = None, devices: Sequence[Any] | None = None, compute_dtype: str | None = None,
    seed: int = 0, full: bool = False, witnesses: Sequence[str] | None = None, mesh: Mesh | None = None,
    specs: tuple[Any, Any, Any] | None = None, reference: Layer | None = None,
) -> Report:  # fmt: skip
    """Hold layer.fwd and layer.bwd against jax.vjp of layer.apply, at these parameters and inputs.

    Compared are the value and every leaf's cotangent, within the error budget of `nnjax.check.witness.oracle`, for random
    cotangents, on each of `devices` (the default one). `key` goes to layers that draw random numbers.

    dtypes      of float64, float32, bfloat16, float16; all by default.
    transforms  of eager, jit, vmap, scan, checkpoint, second (the Hessian-vector product, forward over reverse). By
                default eager and jit in every dtype, the others in float32 and float64; with `full` all in all.
    witnesses   of adjoint, taylor and plain, all by default. Two in float64: proofs that need no reverse mode. plain: the plain
                pair (`nnjax.plain`), where the layer has a faster one, within the same budget in every dtype; under jit,
                with `full` under every transform.
    compute_dtype   the precision in which the layer computes inside, if lower than that of its arguments.

    With `mesh`, the layer runs on each device inside `jax.shard_map`, on its part of the whole arrays params and x: as
    `specs` = (of params, of x, of y) say, PartitionSpecs in trees or for a whole tree at once. Value and gradients, and those
    of its apply, are held against `reference`, the layer on one device, which takes the same params and x. Transforms are
    eager and jit there, witnesses none, unless named. A sum over devices that is missing is a failed row.

    The Report names leaf, layer, and what an error looks like. Nothing is raised for a wrong gradient:
    `.raise_if_failed()` does that. Raises TypeError where `layer` is no Layer, or no leaf has a derivative, and ValueError
    for an unknown dtype, transform or witness, or specs that do not fit.
    """
    expect_layer("check_layer", layer)
    expect_sharding(mesh, specs, reference, devices)
    if mesh is not None and specs is not None and reference is not None:
        chosen = transforms if transforms is not None or full else EVERYWHERE
        opts = options(dtypes, chosen, mesh.devices.flat[:1], compute_dtype, seed, full, witnesses or ())
        return check_on_mesh(layer, (params, x, key), opts, mesh, specs, reference)
    spec, diff, other = split((params, x, key), {}, ("params", "x", "key"))
    opts = options(DTYPES if dtypes is None else dtypes, transforms, devices, compute_dtype, seed, full, witnesses)
    report = run_matrix(layer_subject(layer, spec), diff, other, opts)
    return located(report, layer, params, x, key, opts)


def located(report: Report, layer: Layer, params: Any, x: Any, key: Any, opts: Options) -> Report:
    """The report with the wrong layer inside named in every failing row."""
    wrong = [row for row in report.failures if row.witness == "reference"]
    if not wrong or not layer.parts:
        return report
    first = wrong[0]
    only = opts._replace(dtypes=(first.dtype,), transforms=(first.transform,), witnesses=())

    def check(part, p, v, k):
        try:
            spec, diff, other = split((p, v, k), {}, ("params", "x", "key"))
        except TypeError:
            return Report(())  # a part without a derivative has no gradient to be wrong
        return run_matrix(layer_subject(part, spec), diff, other, only)

    found = localise(layer, params, x, key, check)
    if found is None:
        return report._replace(notes=(*report.notes, f"{layer.name}: every part is right by itself; it is how they are joined"))
    kind = next((row.diagnosis.kind for row in found.rows if row.diagnosis), "unknown")
    rows = []
    for row in report.rows:
        if row.diagnosis is not None:
            own = row.diagnosis
            chosen = kind if own.kind in ("unknown", "partial") else own.kind
            row = row._replace(layer=found.path, diagnosis=own._replace(kind=chosen, detail=f"{own.detail}; {found.words()}"))
        rows.append(row)
    return report._replace(rows=tuple(rows))


def check_vjp(
    f: Callable[..., Any], /, *args: Any, reference: Callable[..., Any] | None = None, dtypes: Sequence[str] | None = None,
    transforms: Sequence[str] | None = None, devices: Sequence[Any] | None = None, compute_dtype: str | None = None,
    seed: int = 0, full: bool = False, witnesses: Sequence[str] | None = None, mesh: Mesh | None = None, **kwargs: Any,
) -> Report:  # fmt: skip
    """Hold the gradient rule of f against jax.vjp of its definition, at these arguments.

    f is a `jax.custom_vjp` function, whose undecorated body is the definition unless `reference` is given, or any
    function with an explicit `reference` of the same arguments. Arguments are pytrees, by position or by keyword. Arrays of
    floating point numbers have a derivative, and so has a Python float, as in jax.grad; arrays of integers, flags and keys
    are passed on. All else is static, given to f as it is: Python ints and flags, strings, dtypes, functions, members of an
    enum, None, and what `nondiff_argnums` names (a float that f needs as it is: close over it). The other options are those
    of `check_layer`; where a definition does not run in bfloat16 or float16 a note says so, unless dtypes are named. mesh:
    where f communicates, the devices. Whatever f raises in a dtype or transform is a failed row, and what the definition
    raises is among what was not compared. Raises TypeError where there is no reference, no
    differentiable argument, or no differentiable output.
    """
    if not callable(f):
        raise TypeError(f"check_vjp: f must be a function, got {describe(f)}; pass the function, then its arguments.")
    definition = reference or body_of(f)
    name = getattr(f, "__name__", type(f).__name__)
    if definition is None:
        raise TypeError(
            f"check_vjp: {name} is not a jax.custom_vjp function, so a reference is needed; "
            "pass reference=, the same function in plain jax.numpy."
        )
    for g in (f, definition):
        expect_arguments("check_vjp", g, args, kwargs)
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
        said = f"{name}: its definition does not run in float64, and is computed in {own}"
        report = report._replace(notes=(said, *report.notes))
    return report if mesh is not None else _arbitrated(report, name, values)


def _arbitrated(report: Report, name: str, values: Callable[..., Report]) -> Report:
    """The report, with differences of values in the place of rows where autodiff does not run in the definition, and a note on
    which of the two is wrong where they differ."""
    if not report.rows and any("in which the definition does not run" in said for said in report.missing):
        found = values()
        said = f"{name}: held against differences of values, as autodiff does not run in its definition"
        return found._replace(notes=(*report.notes, said)) if found.rows or found.missing else report
    if any(row.transform == "jit" and row.dtype == "float64" for row in report.failures):
        ours, theirs = values(), values("body")
        if ours.ok and theirs.failures:
            said = f"{name}: differences of values side with the rule: it is autodiff of its definition that is wrong"
            return report._replace(notes=(*report.notes, said))
    return report


def _expect_alike(
    name: str, f: Callable[..., Any], definition: Callable[..., Any], spec: Spec, diff: Leaves, other: Leaves
) -> None:
    """Raise ValueError where f and its definition return other shapes or dtypes, TypeError where f has no rule yet.

    What cannot be called at all is for the rows to tell.
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
            "pass a reference of the same function."
        )


def check_pair(
    fwd: Callable[..., Any], bwd: Callable[..., Any], /, *args: Any, reference: Callable[..., Any],
    dtypes: Sequence[str] | None = None, transforms: Sequence[str] | None = None, devices: Sequence[Any] | None = None,
    compute_dtype: str | None = None, seed: int = 0, full: bool = False, witnesses: Sequence[str] | None = None,
    mesh: Mesh | None = None, **kwargs: Any,
) -> Report:  # fmt: skip
    """Hold a bare pair, as `jax.custom_vjp.defvjp` takes it, against jax.vjp of `reference`, at these arguments.

    fwd(*args) -> (y, residuals); bwd(residuals, ct_y) -> one cotangent for each argument, None for an argument without a
    derivative, static ones among them. What comes by keyword is passed by position, as JAX does. Besides what `check_vjp`
    compares, residuals must be arrays and every cotangent must have the shape, dtype and tree of its argument. The options
    are those of `check_vjp`.
    """
    for what, f in (("fwd", fwd), ("bwd", bwd), ("reference", reference)):
        if not callable(f):
            raise TypeError(f"check_pair: {what} must be a function, got {describe(f)}; pass fwd, bwd, then the arguments.")
    for f in (fwd, reference):
        expect_arguments("check_pair", f, args, kwargs)
    args, kwargs = positional(fwd, args, kwargs)
    spec, diff, other = split(args, kwargs, argument_names(reference, len(args)))
    hand, problems = pair_run(fwd, bwd, spec)

    name = getattr(fwd, "__name__", "pair")
    subject = Subject(
        case=name, spec=spec, definition=reference, reference=vjp_of(reference, spec), hand=hand,
        rematerialised=vjp_of(paired(fwd, bwd), spec, jax.checkpoint), problems=problems,
        sharding=None if mesh is None else Sharding(mesh),
    )  # fmt: skip
    return run_matrix(subject, diff, other, options(dtypes, transforms, devices, compute_dtype, seed, full, witnesses))


class Difference(NamedTuple):
    """One leaf's gradient against the reference, relative to the size of the truth; `budget` is what may differ."""

    leaf: str
    relative: float
    budget: float
    scale: float  # the 2-norm of the truth

    @property
    def ok(self) -> bool:
        """Whether the difference is within the budget."""
        return self.relative <= self.budget


def compare_gradients(
    hand: Callable[..., Any], reference: Callable[..., Any], params: Any, *batch: Any, seed: int = 0
) -> list[Difference]:
    """How far two functions of `value_and_grad`'s signature lie apart, leaf by leaf, at these parameters and this batch.

    Both are called as f(params, *batch) -> (value, grads), jitted, in the dtype that params have. The difference
    |hand - reference| is in the 2-norm and relative to the truth's; the budget is that of `nnjax.check.witness.oracle`, plus
    what the reference itself is off. The value is compared like a leaf.
    """
    spec, diff, other = split((params, *batch), {}, ("params", "x", "labels"))

    def flat(f):
        return jax.jit(lambda diff, other, linear: jax.tree.leaves(f(*spec.merge(diff, other)[0])))

    run = flat(reference)
    found = budgets(run, diff, other, [], diff[0].dtype, seed)
    names = ["value", *(name for name in spec.names if name.startswith("params"))]
    differences = []
    for name, h, budget in zip(names, on_host(flat(hand)(diff, other, [])), found):
        size = float(budget.size[0])
        apart = float(norms(h - budget.reference)[0])
        allowed = float(budget.bound[0] + norms(budget.reference - budget.truth)[0])
        scale = size if size > 0 else 1.0
        differences.append(Difference(name, apart / scale, allowed / scale, size))
    return differences
