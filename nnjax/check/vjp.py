"""The entry points: check_layer, check_vjp and check_pair, each a function under test held against its definition."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import describe
from ..layer import Layer, as_custom_vjp, expect_layer
from . import transforms
from .diagnose import diagnose
from .oracle import Budget, budgets, in_x64, norms, on_host, random_like
from .report import Diagnosis, Report, Row
from .subject import Spec, argument_names, layer_owner, pair_run, split, vjp_of

DTYPES = ("float64", "float32", "bfloat16")
TRANSFORMS = ("eager", "jit")


class Options(NamedTuple):
    """What to compare: the product of dtypes, transforms and devices (None: the default device)."""

    dtypes: tuple[str, ...]
    transforms: tuple[str, ...]
    devices: tuple[Any, ...]
    compute_dtype: str | None
    seed: int


def options(dtypes, transforms_, devices, compute_dtype, seed) -> Options:
    """Checked options. Raises ValueError for names that are not known."""
    dtypes = tuple(np.dtype(d).name for d in (dtypes or DTYPES))
    for name in dtypes:
        if not jnp.issubdtype(np.dtype(name), jnp.floating):
            raise ValueError(f"check: dtypes must be floating point, got {name}; pick from float64, float32, bfloat16.")
    chosen = tuple(transforms_ or TRANSFORMS)
    for name in chosen:
        transforms.named(name)
    return Options(dtypes, chosen, tuple(devices) if devices else (None,), compute_dtype, seed)


class Subject(NamedTuple):
    """What is under test, as functions of flat lists; compiled once and used for every dtype and seed."""

    case: str
    spec: Spec
    reference: Callable  # run(diff, other, cts) -> Outputs, by jax.vjp of the definition
    hand: Callable  # the same, by the rule under test
    problems: list  # filled while `hand` is traced
    compiled: dict  # name of a transform -> jitted function
    owner: Callable[[str], str]  # the layer inside that owns a leaf

    def once(self, name: str, make: Callable[[], Callable]) -> Callable:
        """The function made under this name the first time it was asked for."""
        if name not in self.compiled:
            self.compiled[name] = make()
        return self.compiled[name]


def _flat_reference(subject: Subject) -> Callable:
    def flat(diff, other, cts):
        out = subject.reference(diff, other, cts)
        return out.floats + out.cotangents

    return subject.once("reference", lambda: jax.jit(flat))


def _output_shapes(subject, diff, other, dtype):
    """Shapes and dtypes of the outputs with a derivative, and the values of the others."""

    def value(diff, other):
        args, kwargs = subject.spec.merge(diff, other)
        leaves = jax.tree.leaves(subject.compiled["definition"](*args, **kwargs))
        return [y for y in leaves if jnp.issubdtype(jnp.asarray(y).dtype, jnp.floating)]

    with jax.enable_x64(dtype == np.float64):
        return jax.eval_shape(value, diff, other)


def run_check(subject: Subject, diff: list, other: list, opts: Options) -> Report:
    """Every dtype, transform and device of the options, on these inputs."""
    rows: list[Row] = []
    for name in opts.dtypes:
        dtype = np.dtype(name)
        cast = [x.astype(dtype) for x in diff]
        shapes = _output_shapes(subject, cast, other, dtype)
        if not shapes:
            raise TypeError(
                f"check: {subject.case} has no output that is real floating point, so it has no gradient; "
                "return the differentiable value."
            )
        rng = np.random.default_rng((opts.seed, 0))
        cts = [random_like(rng, s.shape, s.dtype) for s in shapes]
        found = budgets(_flat_reference(subject), cast, other, cts, dtype, opts.seed, opts.compute_dtype)
        for device in opts.devices:
            for transform in opts.transforms:
                rows += _rows(subject, cast, other, cts, found, dtype, transform, device)
    return Report(tuple(rows), _missing(subject, rows, opts))


def _rows(subject, diff, other, cts, found: list[Budget], dtype, transform, device) -> list[Row]:
    n_outputs = len(cts)
    outputs = ["output"] if n_outputs == 1 else [f"output[{i}]" for i in range(n_outputs)]
    run = subject.once(transform, lambda: transforms.named(transform)(subject.hand))
    target = device or jax.devices()[0]
    subject.problems.clear()

    def compute(diff, other, cts):
        out = run([jnp.asarray(x) for x in diff], other, [jnp.asarray(c) for c in cts])
        return [*out.floats, *out.cotangents]

    with jax.default_device(target):
        h = in_x64(compute, diff, other, cts) if dtype == np.float64 else on_host(compute(diff, other, cts))
    common = {"case": subject.case, "dtype": dtype.name, "transform": transform, "device": target.device_kind}
    sizes = [(f"axis {i} of {n}", s) for n, x in zip(subject.spec.names, diff) for i, s in enumerate(x.shape)]
    rows = [
        Row(
            leaf=p.leaf,
            error=np.inf,
            bound=0.0,
            ok=False,
            diagnosis=Diagnosis(p.kind, p.detail),
            status="failed",
            layer=subject.owner(p.leaf),
            **common,
        )
        for p in subject.once(f"problems {dtype.name} {transform}", lambda: tuple(subject.problems))
    ]
    spoiled = {row.leaf for row in rows if row.diagnosis and row.diagnosis.kind == "wrong_shape"}
    for i, (leaf, value, budget) in enumerate(zip([*outputs, *subject.spec.names], h, found)):
        if leaf in spoiled:
            continue
        error, bound, status = budget.judge(value)
        diagnosis = diagnose(value, budget, sizes, primal=i < n_outputs) if status == "failed" else None
        if budget.disagreement:
            status, diagnosis = "failed", Diagnosis("unknown", budget.disagreement)
        rows.append(
            Row(
                leaf=leaf,
                error=error,
                bound=bound,
                ok=status != "failed",
                diagnosis=diagnosis,
                status=status,
                layer=subject.owner(leaf),
                **common,
            )
        )
    return rows


def _missing(subject, rows: list[Row], opts: Options) -> tuple[str, ...]:
    """What was asked for and is in no row, and leaves about which every row is vacuous."""
    seen = {(row.leaf, row.dtype, row.transform) for row in rows}
    wanted = [(leaf, d, t) for leaf in subject.spec.names for d in opts.dtypes for t in opts.transforms]
    missing = [f"{subject.case}: {' '.join(key)}" for key in wanted if key not in seen]
    for leaf in dict.fromkeys(row.leaf for row in rows):
        if {row.status for row in rows if row.leaf == leaf} == {"vacuous"}:
            missing.append(
                f"{subject.case}: {leaf}, as every bound reaches its size and so proves nothing; "
                "check it at less extreme inputs, or in a wider dtype"
            )
    return tuple(missing)


@functools.lru_cache(maxsize=64)
def _layer_subject(layer: Layer, spec: Spec) -> Subject:
    """One Subject for each layer and shape of arguments, so that checking it again compiles nothing."""

    def fwd(params, x, key):
        return layer.fwd(params, x, key=key)

    def bwd(residuals, ct_y):
        returned = layer.bwd(residuals, ct_y)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise TypeError(f"check: bwd of {layer.name} must return (ct_params, ct_x), got {describe(returned)}.")
        return (*returned, None)

    def apply(params, x, key):
        return layer.apply(params, x, key=key)

    hand, problems = pair_run(fwd, bwd, spec)
    compiled = {"definition": apply, "function": as_custom_vjp(layer)}
    return Subject(layer.name, spec, vjp_of(apply, spec), hand, problems, compiled, lambda leaf: layer_owner(layer, leaf))


def check_layer(
    layer: Layer, params: Any, x: Any, *, key: Any = None, dtypes: Sequence[str] | None = None,
    transforms: Sequence[str] | None = None, devices: Sequence[Any] | None = None, compute_dtype: str | None = None,
    seed: int = 0,
) -> Report:  # fmt: skip
    """Hold layer.fwd and layer.bwd against jax.vjp of layer.apply, at these parameters and inputs.

    Compared are the value and every leaf's cotangent, within the error budget of `nnjax.check.oracle`, for random
    cotangents, in each of `dtypes` (float64, float32, bfloat16) and `transforms` (eager, jit), on each of `devices` (the
    default one). `key` goes to layers that draw random numbers. A Report that names layer and leaf; nothing is raised for
    a wrong gradient (`.raise_if_failed()` does that).
    Raises TypeError where `layer` is no Layer, or no leaf of params and x has a derivative.
    """
    expect_layer("check_layer", layer)
    spec, diff, other = split((params, x, key), {}, ("params", "x", "key"))
    opts = options(dtypes, transforms, devices, compute_dtype, seed)
    return run_check(_layer_subject(layer, spec), diff, other, opts)


def check_vjp(
    f: Callable, *args: Any, reference: Callable | None = None, dtypes: Sequence[str] | None = None,
    transforms: Sequence[str] | None = None, devices: Sequence[Any] | None = None, compute_dtype: str | None = None,
    seed: int = 0, **kwargs: Any,
) -> Report:  # fmt: skip
    """Hold the gradient rule of f against jax.vjp of its definition, at these arguments.

    f is a `jax.custom_vjp` function, whose undecorated body is the definition unless `reference` is given, or any
    function with an explicit `reference` of the same arguments. The other options are those of `check_layer`.
    Raises TypeError where there is no reference, no differentiable argument, or no differentiable output.
    """
    if not callable(f):
        raise TypeError(f"check_vjp: f must be a function, got {describe(f)}; pass the function, then its arguments.")
    definition = reference or _body(f)
    if definition is None:
        raise TypeError(
            f"check_vjp: {getattr(f, '__name__', f)} is not a jax.custom_vjp function, so a reference is needed; "
            "pass reference=, the same function in plain jax.numpy."
        )
    spec, diff, other = split(args, kwargs, argument_names(f, len(args)))
    compiled = {"definition": definition, "function": f}
    name = getattr(f, "__name__", type(f).__name__)
    subject = Subject(name, spec, vjp_of(definition, spec), vjp_of(f, spec), [], compiled, lambda leaf: "")
    return run_check(subject, diff, other, options(dtypes, transforms, devices, compute_dtype, seed))


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


def compare_gradients(hand: Callable, reference: Callable, params: Any, *batch: Any, seed: int = 0) -> list[Difference]:
    """How far two functions of `value_and_grad`'s signature lie apart, leaf by leaf, at these parameters and this batch.

    Both are called as f(params, *batch) -> (value, grads), jitted, in the dtype that params have. The difference
    |hand - reference| is in the 2-norm and relative to the truth's; the budget is that of `nnjax.check.oracle`, plus what
    the reference itself is off. The value is compared like a leaf.
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


def _body(f: Any) -> Callable | None:
    """The undecorated body of a custom_vjp or custom_jvp function, also under `jit`."""
    while f is not None and not isinstance(f, (jax.custom_vjp, jax.custom_jvp)):
        f = getattr(f, "__wrapped__", None)
    return None if f is None else f.fun
