"""Record which custom_vjp and custom_jvp rules a program runs through, how often, and with which arguments.

While `jit` is disabled, a rule under `vmap` or `grad` sees tracers that carry the program's values. Of other tracers only
the shapes are kept, and values are drawn later.
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

SAMPLES = 3  # calls kept of one rule: the first ones with different shapes, then others up to this number
SHAPES = 12  # different shapes kept of one rule, at most
DRAWS = ("normal", "unit", "positive")


class Drawn(NamedTuple):
    """An array of which only shape and dtype are known."""

    shape: tuple[int, ...]
    dtype: Any


class Call(NamedTuple):
    """A call of a rule, with its arguments (args, kwargs) as leaves, as a program's own pytree nodes may take only arrays.

    on: the `jax.shard_map` that it was in, if any. mapped: whether it was under `vmap`.
    """

    rule: Any
    leaves: tuple[Any, ...]
    treedef: Any
    on: Inside | None
    mapped: bool

    @property
    def drawn(self) -> bool:
        """Whether values must be drawn."""
        return any(isinstance(v, Drawn) for v in self.leaves)

    @property
    def empty(self) -> bool:
        """Whether there are arrays, but none has a number in it."""
        sizes = [math.prod(v.shape) for v in self.leaves if isinstance(v, (jax.Array, np.ndarray, Drawn))]
        return bool(sizes) and not any(sizes)

    @property
    def body(self) -> Callable[..., Any]:
        """The undecorated function."""
        return body_of(self.rule) or self.rule

    def filled(self, seed: int) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        """The arguments. If values must be drawn, several times, with other signs and sizes: the rule may not be meant for the
        first."""
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
    """The name of a rule, and where the rule and its function are defined."""

    name: str
    where: str
    defined: str


class Heard(NamedTuple):
    """A rule, how many calls it got, and some of them. Rules that a program makes again at each call count as one.

    rule: None if it closes over traced values, so that it cannot be kept. problems: why a call was not kept.
    """

    rule: Any
    title: Title
    calls: list[int]
    samples: list[Call]
    shapes: set[Any]
    problems: list[str]


@contextmanager
def listening(heard: list[Heard], keep: int | None = None) -> Iterator[None]:
    """Within this context, every call of a rule is recorded.

    keep: of arguments with more bytes only shapes are kept; smaller ones are copied, as a program may donate its own.
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
        if entry.rule is rule:  # other rules may be freed, and their ids used again
            known[id(rule)] = entry
        return entry

    def note(rule, args, kwargs):
        entry = entry_of(rule)
        entry.calls[0] += 1
        if entry.rule is None or len(entry.shapes) >= SHAPES * (1 if keep is not None else 4):
            return
        given, named = positional(body_of(rule) or rule, args, kwargs)  # its keywords could clash with those of check_vjp
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
                    note(getattr(self, "pair_of", self), args, kwargs)  # `in_both_modes`
                except Exception as error:  # listening must not disturb the program, but must report what it could not keep
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
    """A leaf as text: an array by shape and dtype, a static leaf by its value; a function made again counts as the same."""
    if isinstance(v, (jax.Array, np.ndarray)):
        return describe(v)
    return getattr(v, "__qualname__", None) or repr(v)


def _kept(leaves: list[Any], on: Inside | None, keep: int | None) -> Iterator[Any]:
    """The leaves, with shapes instead of traced ones; inside `jax.shard_map`, shapes over all devices."""
    large = keep is not None and sum(getattr(v, "nbytes", 0) for v in leaves if not isinstance(v, Tracer)) > keep
    for i, v in enumerate(leaves):
        if isinstance(v, Tracer):
            known = _concrete(v) if on is None and keep is None else None
            yield Drawn(v.shape if on is None else on.stacked(i, v.shape), v.dtype) if known is None else known
        elif not isinstance(v, (jax.Array, np.ndarray)) or jnp.issubdtype(v.dtype, jax.dtypes.prng_key):
            yield v
        elif large:
            yield Drawn(v.shape, v.dtype)
        else:  # copied, as the program may overwrite or donate it
            yield v if keep is None and isinstance(v, jax.Array) else np.array(v)


def _batched(v: Any) -> bool:
    """Whether a value is traced by `vmap`, perhaps below other transforms."""
    while isinstance(v, Tracer):
        if getattr(v, "batch_dim", None) is not None:
            return True
        v = _below(v)
    return False


def _below(v: Any) -> Any:
    """The value that a tracer of `grad`, `jvp` or `vmap` carries, the first of a batch; None for other tracers."""
    batch = getattr(v, "batch_dim", None)
    if hasattr(v, "primal"):
        return v.primal
    if not hasattr(v, "val"):
        return None
    if not isinstance(batch, int) or not v.val.shape[batch]:
        return v.val if batch is None else None
    return jax.lax.index_in_dim(v.val, 0, batch, keepdims=False)


def _concrete(v: Any) -> Any:
    """The value of a tracer, which transforms have while `jit` is disabled, or None."""
    while isinstance(v, Tracer):
        v = _below(v)
    return v if isinstance(v, (jax.Array, np.ndarray)) else None


def shortened(where: str) -> str:
    """A file and line, relative to the working folder or to the folder of packages that holds it."""
    for head in (f"{Path.cwd()}/", "site-packages/"):
        if head in where:
            return where.rpartition(head)[2]
    return where
