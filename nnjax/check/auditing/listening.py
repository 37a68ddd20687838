"""Which custom_vjp and custom_jvp rules a program runs through, how often, and with what.

A rule under `jit`, `vmap` or `grad` sees tracers. Of these the shapes are kept, and values are drawn later.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """A call of a rule; on: where inside `jax.shard_map` it was, if it was."""

    rule: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    on: Inside | None

    @property
    def drawn(self) -> bool:
        """Whether values have to be drawn."""
        return any(isinstance(v, Drawn) for v in self._leaves()[0])

    @property
    def body(self) -> Callable[..., Any]:
        """The undecorated function."""
        return body_of(self.rule) or self.rule

    def _leaves(self) -> tuple[list[Any], Any]:
        return jax.tree.flatten((self.args, self.kwargs), is_leaf=lambda v: isinstance(v, Drawn))

    def filled(self, seed: int) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        """The arguments; where values have to be drawn several times, of other signs and sizes: the first may be none that the
        rule is meant for."""
        leaves, treedef = self._leaves()
        for how in DRAWS if self.drawn else DRAWS[:1]:
            rng = np.random.default_rng(seed)
            yield jax.tree.unflatten(treedef, [_values(v, rng, how) if isinstance(v, Drawn) else v for v in leaves])


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

    rule: None where it closes over values that were being traced: it cannot be kept.
    """

    rule: Any
    title: Title
    calls: list[int]
    samples: list[Call]
    shapes: set[Any]


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
            heard.append(entry := Heard(None if gone else rule, title, [0], [], set()))
        if entry.rule is rule:  # the others may go, and their ids come again
            known[id(rule)] = entry
        return entry

    def note(rule, args, kwargs):
        entry = entry_of(rule)
        entry.calls[0] += 1
        if keep is not None and (entry.rule is not rule or len(entry.shapes) >= SHAPES or holds_tracers(_static(args, kwargs))):
            return
        given, named = positional(body_of(rule) or rule, args, kwargs)  # a keyword of its own may be one of check_vjp too
        on = Inside.now((given, named))
        signature = str((jax.tree.map(describe, (given, named)), on))
        if signature not in entry.shapes or len(entry.samples) < SAMPLES:
            entry.shapes.add(signature)
            given, named = _kept(given, named, on, keep)
            entry.samples.append(Call(rule, given, named, on))

    def listener(cls):
        def call(self, *args, **kwargs):
            if is_own(self):
                note(self, args, kwargs)
            return originals[cls](self, *args, **kwargs)

        return call

    for cls in originals:
        setattr(cls, "__call__", listener(cls))  # noqa: B010  (an assignment confuses the type checker)
    try:
        yield
    finally:
        for cls in originals:
            setattr(cls, "__call__", originals[cls])  # noqa: B010


def _static(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The leaves that are no arrays."""
    return [v for v in jax.tree.leaves((args, kwargs)) if not hasattr(v, "dtype")]


def _kept(args: tuple[Any, ...], kwargs: dict[str, Any], on: Inside | None, keep: int | None) -> Any:
    """(args, kwargs), with shapes in the place of tracers; inside `jax.shard_map`, those of all devices."""
    leaves, treedef = jax.tree.flatten((args, kwargs))
    large = keep is not None and sum(getattr(v, "nbytes", 0) for v in leaves if not isinstance(v, Tracer)) > keep

    def one(i, v):
        if isinstance(v, Tracer):
            return Drawn(v.shape if on is None else on.stacked(i, v.shape), v.dtype)
        if keep is None or not isinstance(v, (jax.Array, np.ndarray)) or jnp.issubdtype(v.dtype, jax.dtypes.prng_key):
            return v
        return Drawn(v.shape, v.dtype) if large else np.array(v)

    return jax.tree.unflatten(treedef, [one(i, v) for i, v in enumerate(leaves)])
