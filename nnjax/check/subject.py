"""What is checked, reduced to one form: functions of flat lists of arrays.

Arguments may be any pytrees. There are three kinds of leaves: with a derivative (real floating point), without one
(integers, booleans, keys: passed on), and everything else (None, strings, Python ints: closed over).
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import describe
from ..layer import Layer
from .diagnosis.mesh_faults import Sharding

FLOAT0 = jax.dtypes.float0
Leaf = jax.Array | np.ndarray
Leaves = Sequence[Leaf]  # a flat list of arrays, which every function under test takes and returns


def is_key(x: Any) -> bool:
    """Whether x is a typed key array of jax.random."""
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def is_passed_on(x: Any) -> bool:
    """Whether x is an array of numbers, flags or keys, and so an argument of a traced function.

    Everything else is static: Python numbers, NumPy integer scalars and flags, strings, dtypes, functions, enum members.
    """
    if is_key(x):
        return True
    if not isinstance(x, (jax.Array, np.ndarray, np.generic)):
        return False
    if isinstance(x, np.generic):
        return jnp.issubdtype(x.dtype, jnp.inexact)
    return jnp.issubdtype(x.dtype, jnp.number) or x.dtype == bool


def is_float(x: Any) -> bool:
    """Whether x is an array of real floating point numbers. A class such as np.float32 has a dtype too, but is not one."""
    return isinstance(x, (jax.Array, np.ndarray, np.generic)) and not is_key(x) and jnp.issubdtype(x.dtype, jnp.floating)


class Spec(NamedTuple):
    """How flat lists become the arguments again. Two are equal if their static leaves are; 1 and True are different."""

    treedef: Any
    kinds: tuple[str, ...]  # for each leaf "diff", "other" or "static"
    static: tuple[Any, ...]
    names: tuple[str, ...]  # those of the leaves with a derivative

    def __hash__(self) -> int:  # a static leaf may be a set
        return hash((self.treedef, self.kinds, self.names))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Spec) or self[:2] != other[:2] or self.names != other.names:
            return False
        return all(_same(a, b) for a, b in zip(self.static, other.static))

    def merge(self, diff: Any, other: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(args, kwargs) with these leaves."""
        pools = {"diff": iter(diff), "other": iter(other), "static": iter(self.static)}
        return jax.tree.unflatten(self.treedef, [next(pools[kind]) for kind in self.kinds])


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and isinstance(a, Hashable) and bool(a == b))


def split(args: tuple[Any, ...], kwargs: dict[str, Any], names: tuple[str, ...]) -> tuple[Spec, Leaves, Leaves]:
    """The spec of these arguments, their leaves with a derivative (as NumPy arrays) and those without.

    A Python float has a derivative, as in jax.grad; Python ints and flags, strings, functions etc. are static.
    Raises TypeError for complex leaves, and if no leaf has a derivative.
    """
    paths, treedef = jax.tree_util.tree_flatten_with_path((args, kwargs))
    kinds, static, diff, other, diff_names = [], [], [], [], []
    for path, leaf in paths:
        if isinstance(leaf, (float, complex)) and not isinstance(leaf, np.generic):
            leaf = np.asarray(leaf, np.float32 if isinstance(leaf, float) else np.complex64)
        name = leaf_name(path, names)
        if not is_passed_on(leaf):
            kinds.append("static")
            static.append(leaf)
        elif is_key(leaf):
            kinds.append("other")
            other.append(leaf)
        elif jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise TypeError(
                f"check: {name} must be real, as complex derivatives are not checked, got {describe(leaf)}; "
                "pass its real and imaginary parts as two arguments."
            )
        elif is_float(leaf):
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


def leaf_name(path: Any, names: Any) -> str:
    """`params.w`: the name of the argument, then the path inside it; path: one of (args, kwargs)."""
    top, index, *rest = path
    if isinstance(index, jax.tree_util.DictKey):
        head = str(index.key)
    else:
        head = names[index.idx] if index.idx < len(names) else f"args[{index.idx}]"
    if head.startswith(("output", "exact output", "cotangents", "residuals")):  # rows of a report that belong to no argument
        head = f"argument {head}"
    return head + jax.tree_util.keystr(tuple(rest))


class Outputs(NamedTuple):
    """What a run returns: the outputs with a derivative, the others, and the cotangents of the inputs."""

    floats: Leaves
    others: Leaves
    cotangents: Leaves


Run = Callable[[Leaves, Leaves, Leaves], Outputs]  # run(diff, other, cts)
Flat = Callable[[Leaves, Leaves, Leaves], Leaves]  # the same in one list: outputs, then cotangents


def vjp_of(f: Callable[..., Any], spec: Spec, wrap: Callable[..., Any] = lambda flat: flat) -> Run:
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


def sorted_outputs(y: Any) -> tuple[Leaves, Leaves]:
    """The leaves of an output that have a derivative, and those that do not."""
    leaves = jax.tree.leaves(y)
    return [v for v in leaves if is_float(v)], [v for v in leaves if not is_float(v)]


class Problem(NamedTuple):
    """A fault in the structure that a rule returns, found before any number is compared."""

    leaf: str
    kind: str
    detail: str


class Problems(threading.local):
    """Problems found in tracing; each dtype is traced in its own thread."""

    def __init__(self):
        self.found: list[Problem] = []

    def report(self, leaf: str, kind: str, detail: str) -> None:
        """Keep a problem."""
        self.found.append(Problem(leaf, kind, detail))


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """The code under test, as functions of flat lists; compiled once and used for every dtype and seed.

    definition: the function itself. reference, hand, rematerialised: run(diff, other, cts) -> Outputs, by jax.vjp of the
    definition, by the rule under test, and by that rule under jax.checkpoint. problems: filled while `hand` is traced.
    compiled, shared: what was compiled so far for the rule, and for the definition. owner: the layer inside that owns a leaf.
    layer: the layer under test, if it is one. sharding: where the rule runs, if on several devices. plain: the same layer
    with only its plain pair, if that differs.
    """

    case: str
    spec: Spec
    definition: Callable[..., Any]
    reference: Run
    hand: Run
    rematerialised: Run
    problems: Problems = field(default_factory=Problems)
    compiled: dict[Any, Any] = field(default_factory=dict)
    shared: dict[Any, Any] = field(default_factory=dict)
    owner: Callable[[str], str] = lambda leaf: ""
    layer: Layer | None = None
    sharding: Sharding | None = None
    plain: "Subject | None" = None


def layer_owner(layer: Layer, name: str) -> str:
    """The innermost part that owns the leaf called e.g. `params[0][2].w`, if the parameters show which part owns them.

    They do if there is one entry for each part, or if they are those of the only part.
    """
    path = name.removeprefix("params")
    owner, found = layer, ""
    while name.startswith("params") and owner.parts:
        if _lends_its_parameters(owner):
            owner, found = owner.parts[0], f"{found}/{owner.name}"
        elif path.startswith("[") and path[1 : path.index("]")].isdigit() and len(owner.parts) > int(path[1 : path.index("]")]):
            i = int(path[1 : path.index("]")])
            path = path[path.index("]") + 1 :]
            owner, found = owner.parts[i], f"{found}/{i}"
        else:
            break
    return f"{found.strip('/')}:{owner.name}" if found else ""


def _lends_its_parameters(layer: Layer) -> bool:
    """Whether the layer's parameters are those of its one part, perhaps stacked."""
    if len(layer.parts) != 1:
        return False
    own, theirs = (jax.tree.structure(jax.eval_shape(f.init, jax.random.key(0))) for f in (layer, layer.parts[0]))
    return own == theirs
