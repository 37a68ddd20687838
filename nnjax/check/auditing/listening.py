"""Which custom_vjp and custom_jvp rules a program runs through, how often, and with what.

A rule under `vmap` or `grad` sees tracers that carry the program's values, while `jit` is disabled. Of other tracers shapes are
kept, and values are drawn later.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ...errors import describe
from ..calls import positional
from .inside import Inside
from .rules import body_of, classes, defined_at, holds_tracers, is_own, same_rule, source

SAMPLES = 3  # calls of one rule that are kept: the first ones whose shapes differ, and further ones up to this number
SHAPES = 12  # shapes of one rule that are kept at most
DRAWS = ("normal", "unit", "positive")


class Drawn(NamedTuple):
    """An array of which shape and dtype alone are known."""

    shape: tuple[int, ...]
    dtype: Any


class Call(NamedTuple):
    """A call of a rule, its arguments (args, kwargs) taken apart: a node of a program's own may take nothing but arrays.

    on: where inside `jax.shard_map` it was, if it was. mapped: whether it was under `vmap`.
    """

    rule: Any
    leaves: tuple[Any, ...]
    treedef: Any
    on: Inside | None
    mapped: bool

    @property
    def drawn(self) -> bool:
        """Whether values have to be drawn."""
        return any(isinstance(v, Drawn) for v in self.leaves)

    @property
    def empty(self) -> bool:
        """Whether there are arrays, and no number in any."""
        sizes = [math.prod(v.shape) for v in self.leaves if isinstance(v, (jax.Array, np.ndarray, Drawn))]
        return bool(sizes) and not any(sizes)

    @property
    def body(self) -> Callable[..., Any]:
        """The undecorated function."""
        return body_of(self.rule) or self.rule

    def filled(self, seed: int) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        """The arguments; where values have to be drawn several times, of other signs and sizes: the first may be none that the
        rule is meant for."""
        for how in DRAWS if self.drawn else DRAWS[:1]:
            rng = np.random.default_rng(seed)
            yield jax.tree.unflatten(self.treedef, [_values(v, rng, how) if isinstance(v, Drawn) else v for v in self.leaves])


def _values(array: Drawn, rng: np.random.Generator, how: str) -> Any:
    shape, dtype = array
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        key = jax.random.key(int(rng.integers(2**31)))
        return jax.random.split(key, shape) if shape else key
    if not jnp.issubdtype(dtype, jnp.inexact):
        return rng.integers(0, 2, shape).astype(dtype)
    if how == "unit":
        return rng.uniform(0.05, 0.95, shape).astype(dtype)
    if how == "positive":
        return rng.uniform(1.0, 3.0, shape).astype(dtype)
    value = rng.standard_normal(shape)
    return (value + 1j * rng.standard_normal(shape) if jnp.issubdtype(dtype, jnp.complexfloating) else value).astype(dtype)


class Title(NamedTuple):
    """What a rule is called, where its rule stands, and where the function that has it."""

    name: str
    where: str
    defined: str


class Heard(NamedTuple):
    """A rule, how many calls it got, and some of them; rules that a program makes anew at each call are one.

    rule: None where it closes over values that were being traced: it cannot be kept. problems: why a call was not kept.
    """

    rule: Any
    title: Title
    calls: list[int]
    samples: list[Call]
    shapes: set[Any]
    problems: list[str]


@contextmanager
def listening(heard: list[Heard], keep: int | None = None) -> Iterator[None]:
    """While inside, every call of a rule is noted.

    keep: of arguments with more bytes only shapes are kept, and of smaller ones copies, as a program may give its own away.
    """
    originals = {cls: cls.__call__ for cls in classes()}
    known: dict[int, Heard] = {}

    def entry_of(rule):
        entry = known.get(id(rule))
        if entry is not None:
            return entry
        gone = keep is not None and holds_tracers(rule)
        title = Title(*source(rule), defined_at(rule))
        alike = (e for e in heard if (e.title == title if gone else e.rule is not None and same_rule(e.rule, rule)))
        entry = next(alike, None)
        if entry is None:
            heard.append(entry := Heard(None if gone else rule, title, [0], [], set(), []))
        if entry.rule is rule:  # the others may go, and their ids come again
            known[id(rule)] = entry
        return entry

    def note(rule, args, kwargs):
        entry = entry_of(rule)
        entry.calls[0] += 1
        if entry.rule is None or len(entry.shapes) >= SHAPES * (1 if keep is not None else 4):
            return
        given, named = positional(body_of(rule) or rule, args, kwargs)  # a keyword of its own may be one of check_vjp too
        leaves, treedef = jax.tree.flatten((given, named))
        gone = holds_tracers(rule) or any(holds_tracers(v) for v in leaves if not isinstance(v, Tracer))
        if gone and (keep is not None or entry.samples):
            return
        on = Inside.now((given, named))
        signature = str(([_told(v) for v in leaves], treedef, on))
        if signature not in entry.shapes or len(entry.samples) < SAMPLES:
            entry.shapes.add(signature)
            mapped = any(_batched(v) for v in leaves)
            entry.samples.append(Call(rule, tuple(_kept(leaves, on, keep)), treedef, on, mapped))

    def listener(cls):
        def call(self, *args, **kwargs):
            if is_own(self):
                try:
                    note(self, args, kwargs)
                except Exception as error:  # listening must not disturb a program, nor forget what it could not keep
                    said = f"not kept: {type(error).__name__}: {error}"
                    title = Title(getattr(self, "__name__", type(self).__name__), "source unknown", "source unknown")
                    entry = known.get(id(self)) or Heard(None, title, [1], [], set(), [])
                    entry.problems.append(said)
                    if not any(entry is e for e in heard):
                        heard.append(entry)
            return originals[cls](self, *args, **kwargs)

        return call

    for cls in originals:
        setattr(cls, "__call__", listener(cls))  # noqa: B010  (an assignment confuses the type checker)
    try:
        yield
    finally:
        for cls in originals:
            setattr(cls, "__call__", originals[cls])  # noqa: B010


def _told(v: Any) -> str:
    """A leaf in words: an array by shape and dtype, what is static by its value; a function made anew is the same one."""
    if isinstance(v, (jax.Array, np.ndarray)):
        return describe(v)
    return getattr(v, "__qualname__", None) or repr(v)


def _kept(leaves: list[Any], on: Inside | None, keep: int | None) -> Iterator[Any]:
    """The leaves, with shapes in the place of those that are traced; inside `jax.shard_map`, those of all devices."""
    large = keep is not None and sum(getattr(v, "nbytes", 0) for v in leaves if not isinstance(v, Tracer)) > keep
    for i, v in enumerate(leaves):
        if isinstance(v, Tracer):
            known = _concrete(v) if on is None and keep is None else None
            yield Drawn(v.shape if on is None else on.stacked(i, v.shape), v.dtype) if known is None else known
        elif not isinstance(v, (jax.Array, np.ndarray)) or jnp.issubdtype(v.dtype, jax.dtypes.prng_key):
            yield v
        elif large:
            yield Drawn(v.shape, v.dtype)
        else:  # copied where a program may write into it, or give it away
            yield v if keep is None and isinstance(v, jax.Array) else np.array(v)


def _batched(v: Any) -> bool:
    """Whether a value is traced by `vmap`, perhaps below other transforms."""
    while isinstance(v, Tracer):
        if getattr(v, "batch_dim", None) is not None:
            return True
        v = _below(v)
    return False


def _below(v: Any) -> Any:
    """What a tracer of `grad`, `jvp` or `vmap` carries, at the first place of a batch; None of the others."""
    batch = getattr(v, "batch_dim", None)
    if hasattr(v, "primal"):
        return v.primal
    if not hasattr(v, "val"):
        return None
    if not isinstance(batch, int) or not v.val.shape[batch]:
        return v.val if batch is None else None
    return jax.lax.index_in_dim(v.val, 0, batch, keepdims=False)


def _concrete(v: Any) -> Any:
    """The value of a tracer, as transforms have one while `jit` is disabled, or None."""
    while isinstance(v, Tracer):
        v = _below(v)
    return v if isinstance(v, (jax.Array, np.ndarray)) else None


def shortened(where: str) -> str:
    """A file and line, from the working folder or the folder of packages that it lies in."""
    for head in (f"{Path.cwd()}/", "site-packages/"):
        if head in where:
            return where.rpartition(head)[2]
    return where
