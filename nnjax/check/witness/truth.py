"""How precise the float64 truth of a definition really is.

Code that casts to float32 or bfloat16 inside is no more precise than that, even in float64. The traced program shows it:
an operation that takes float64 and returns something narrower.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..subject import Leaves, Run
from .oracle import eps_of, on_host


def support(run: Run, diff: Leaves, other: Leaves, cts: Leaves) -> float:
    """The relative rounding that the truth of run(diff, other, cts) supports: eps64, or that of the narrowest cast."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        program = jax.make_jaxpr(lambda diff, cts: run(diff, other, cts))(on_host(diff), on_host(cts))
    found = [eps_of(np.float64)]
    for takes, gives in _operations(program.jaxpr, [True] * len(program.jaxpr.invars)):
        if np.dtype(np.float64) in takes:
            found += [eps_of(g) for g in gives if jnp.issubdtype(g, jnp.floating)]
    return max(found)


def operations(jaxpr: Any) -> set[str]:
    """The names of a program's operations, inner programs included."""
    inner = [j for equation in jaxpr.eqns for value in equation.params.values() for j in _programs(value)]
    return {equation.primitive.name for equation in jaxpr.eqns}.union(*map(operations, inner))


def _operations(jaxpr: Any, moving: list[bool]) -> Iterator[tuple[list[np.dtype], list[np.dtype]]]:
    """(input dtypes, output dtypes) of every operation that depends on a moving input, inner programs included.

    Other operations are constants, such as a random mask, and may have any precision.
    """
    depends = {v for v, m in zip(jaxpr.invars, moving) if m}
    for equation in jaxpr.eqns:
        hit = [not hasattr(v, "val") and v in depends for v in equation.invars]
        if not any(hit):
            continue
        depends.update(equation.outvars)
        inner = [j for value in equation.params.values() for j in _programs(value)]
        for program in inner:
            n = len(program.invars)
            yield from _operations(program, hit if n == len(hit) else [True] * n)
        if not inner:
            yield _dtypes(equation.invars), _dtypes(equation.outvars)


def _programs(value: Any) -> Iterator[Any]:
    values = value if isinstance(value, (tuple, list)) else (value,)
    for v in values:
        v = getattr(v, "jaxpr", v)
        if hasattr(v, "eqns"):
            yield v


def _dtypes(variables) -> list[np.dtype]:
    found = (getattr(v.aval, "dtype", None) for v in variables)
    return [d for d in found if d is not None]
