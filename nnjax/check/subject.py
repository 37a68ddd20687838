"""What is checked, reduced to one form: functions of flat lists of arrays.

Arguments are any pytrees. Their leaves are sorted into those with a derivative (real floating point), those without
(integers, booleans, keys: passed on), and everything else (None, strings, Python ints: closed over).
"""

import inspect
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import describe
from ..layer import Layer
from .mesh_faults import Sharding

FLOAT0 = jax.dtypes.float0


def is_key(x: Any) -> bool:
    """Whether x is a typed key array of jax.random."""
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _is_float(x) -> bool:
    return hasattr(x, "dtype") and not is_key(x) and jnp.issubdtype(x.dtype, jnp.floating)


class Spec(NamedTuple):
    """How flat lists make up the arguments again. Hashable where the static leaves are."""

    treedef: Any
    kinds: tuple[str, ...]  # of each leaf: "diff", "other" or "static"
    static: tuple[Any, ...]
    names: tuple[str, ...]  # of the leaves with a derivative

    def merge(self, diff, other) -> tuple:
        """(args, kwargs) with these leaves."""
        pools = {"diff": iter(diff), "other": iter(other), "static": iter(self.static)}
        return jax.tree.unflatten(self.treedef, [next(pools[kind]) for kind in self.kinds])


def split(args: tuple, kwargs: dict, names: tuple[str, ...]) -> tuple[Spec, list, list]:
    """The spec of these arguments, their leaves with a derivative (as NumPy arrays) and those without.

    Raises TypeError for complex leaves, and where no leaf has a derivative.
    """
    paths, treedef = jax.tree_util.tree_flatten_with_path((args, kwargs))
    kinds, static, diff, other, diff_names = [], [], [], [], []
    for path, leaf in paths:
        if isinstance(leaf, (float, complex)) and not isinstance(leaf, np.generic):
            leaf = np.asarray(leaf, np.float32 if isinstance(leaf, float) else np.complex64)
        name = leaf_name(path, names)
        if is_key(leaf):
            kinds.append("other")
            other.append(leaf)
        elif not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
            kinds.append("static")
            static.append(leaf)
        elif jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise TypeError(
                f"check: {name} is complex, {describe(leaf)}, and complex derivatives are not checked; "
                "pass its real and imaginary parts as two arguments."
            )
        elif _is_float(leaf):
            kinds.append("diff")
            diff.append(np.asarray(leaf))
            diff_names.append(name)
        else:
            kinds.append("other")
            other.append(leaf)
    if not diff:
        raise TypeError(
            "check: no argument is an array of floating point numbers, so there is no gradient to compare; "
            f"got {', '.join(describe(leaf) for _, leaf in paths) or 'no argument at all'}."
        )
    return Spec(treedef, tuple(kinds), tuple(static), tuple(diff_names)), diff, other


def leaf_name(path, names) -> str:
    """`params.w`: the name of the argument, then the path inside it; path: one of (args, kwargs)."""
    top, index, *rest = path
    if isinstance(index, jax.tree_util.DictKey):
        head = str(index.key)
    else:
        head = names[index.idx] if index.idx < len(names) else f"args[{index.idx}]"
    return head + jax.tree_util.keystr(tuple(rest))


def argument_names(f: Callable, n: int) -> tuple[str, ...]:
    """The names of f's first n positional parameters, as far as it has a signature."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return ()
    plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return tuple(plain[:n])


class Outputs(NamedTuple):
    """What a run gives: the outputs with a derivative, the others, and the cotangents of the inputs."""

    floats: list
    others: list
    cotangents: list


def vjp_of(f: Callable, spec: Spec, wrap: Callable = lambda flat: flat) -> Callable:
    """run(diff, other, cts) -> Outputs by jax.vjp of f: the reference, or a function whose rule is under test.

    wrap goes around f as a function of the leaves with a derivative (`jax.checkpoint`).
    """

    def run(diff, other, cts):
        def flat(diff):
            args, kwargs = spec.merge(diff, other)
            return sorted_outputs(f(*args, **kwargs))

        floats, pull, others = jax.vjp(wrap(flat), diff, has_aux=True)
        return Outputs(floats, others, pull(list(cts))[0])

    return run


def sorted_outputs(y: Any) -> tuple[list, list]:
    """The leaves of an output that have a derivative, and those that do not."""
    leaves = jax.tree.leaves(y)
    return [v for v in leaves if _is_float(v)], [v for v in leaves if not _is_float(v)]


def with_cotangents(y: Any, cts) -> Any:
    """A tree like y of these cotangents, float0 where an output has none."""
    pool = iter(cts)
    return jax.tree.map(lambda v: next(pool) if _is_float(v) else np.zeros(jnp.shape(v), FLOAT0), y)


class Problem(NamedTuple):
    """Something wrong with the shape of what a rule returns, found before any number is compared."""

    leaf: str
    kind: str
    detail: str


class Problems(threading.local):
    """What tracing found; dtypes are traced in threads of their own."""

    def __init__(self):
        self.found: list[Problem] = []


class Subject(NamedTuple):
    """What is under test, as functions of flat lists; compiled once and used for every dtype and seed.

    definition: the function itself. reference, hand, rematerialised: run(diff, other, cts) -> Outputs, by jax.vjp of the
    definition, by the rule under test, and by that rule under jax.checkpoint. problems: filled while `hand` is traced.
    compiled, shared: what was compiled so far for the rule, and for the definition. owner: the layer inside that owns a
    leaf. layer: the layer under test, if it is one. sharding: where the rule runs, if on more devices than one.
    """

    case: str
    spec: Spec
    definition: Callable
    reference: Callable
    hand: Callable
    rematerialised: Callable
    problems: Problems
    compiled: dict
    shared: dict
    owner: Callable[[str], str]
    layer: Layer | None = None
    sharding: Sharding | None = None


def pair_run(fwd: Callable, bwd: Callable, spec: Spec) -> tuple[Callable, Problems]:
    """run(diff, other, cts) -> Outputs by a hand-written pair, and what tracing it found wrong.

    fwd(*args, **kwargs) -> (y, residuals); bwd(residuals, ct_y) -> one cotangent for each positional argument, where None
    stands for zero, or for an argument without a derivative.
    """
    problems = Problems()

    def report(leaf, kind, detail):
        if (leaf, kind) not in [p[:2] for p in problems.found]:
            problems.found.append(Problem(leaf, kind, detail))

    def run(diff, other, cts):
        args, kwargs = spec.merge(diff, other)
        returned = fwd(*args, **kwargs)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise TypeError(f"check: fwd must return (y, residuals), got {describe(returned)}; return both, as a tuple.")
        y, residuals = returned
        for r in jax.tree.leaves(residuals):
            if not hasattr(r, "dtype"):
                report(
                    "residuals",
                    "wrong_dtype",
                    f"a residual is a {type(r).__name__}, not an array: lax.scan cannot "
                    "carry it; close over it, or keep it as an array",
                )
        ct_args = bwd(residuals, with_cotangents(y, cts))
        return Outputs(*sorted_outputs(y), _aligned(spec, args, diff, ct_args, report))

    return run, problems


def paired(fwd: Callable, bwd: Callable) -> Callable:
    """The function whose rule the pair is."""

    @jax.custom_vjp
    def function(*args):
        return fwd(*args)[0]

    function.defvjp(fwd, bwd)
    return function


def _aligned(spec, args, diff, ct_args, report) -> list:
    """The cotangents in the order of the leaves with a derivative; a leaf whose cotangent is unusable counts as zero."""
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


def _numbers(spec) -> list:
    count = iter(range(len(spec.kinds)))
    return [_Number(next(count)) if kind == "diff" else _Number(-1) for kind in spec.kinds]


class _Number:
    """A leaf's place among those with a derivative, or -1."""

    def __init__(self, i):
        self.i = i


def _match(number, ct, found, report, names) -> None:
    """Walk the arguments' tree and the cotangents' together. None in the latter stands for zeros."""
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
        report("cotangents", "wrong_shape", f"the tree of cotangents does not mirror that of the arguments: {first}")
        return
    for n, c in zip(inner, parts):
        _match(n, c, found, report, names)


def layer_owner(layer: Layer, name: str) -> str:
    """The innermost part of a `serial`, `parallel` or `residual` that owns the leaf called e.g. `params[0][2].w`."""
    path = name.removeprefix("params")
    owner, found = layer, ""
    while name.startswith("params") and owner.parts:
        if owner.name in ("residual", "scan_layers"):
            owner, found = owner.parts[0], f"{found}/{owner.name}"
        elif path.startswith("[") and path[1 : path.index("]")].isdigit() and len(owner.parts) > int(path[1 : path.index("]")]):
            i = int(path[1 : path.index("]")])
            path = path[path.index("]") + 1 :]
            owner, found = owner.parts[i], f"{found}/{i}"
        else:
            break
    return f"{found.strip('/')}:{owner.name}" if found else ""
