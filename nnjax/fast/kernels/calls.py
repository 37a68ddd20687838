"""The layout of arrays for attention's kernels, and how a program of the grid finds its blocks."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from ...linear import crop, pad
from .plan import CUDA, Plan, amounts, blocks, compiler_params, over, rest

Place = Callable[[Any], tuple[Any, Any, Any]]  # program -> its example, block of heads, block of positions


def laid(x: Array, size: int, plan: Plan) -> Array:
    """(b, heads, n, d) -> (b, heads, padded n, width), or on a GPU (b, padded n, heads, width), the layout of activations.

    There the compiler removes this transposition together with the one that it undoes.
    """
    x = pad(x, amounts(x.shape, {-2: blocks(x.shape[-2], size) * size, -1: plan.width}))
    return jnp.swapaxes(x, 1, 2) if plan.platform == CUDA else x


def laid_t(y: Array, shape: tuple[int, ...], plan: Plan) -> Array:
    """Back to (b, heads, n, d), without padding."""
    y = jnp.swapaxes(y, 1, 2) if plan.platform == CUDA else y
    return crop(y, tuple((0, n - m) for n, m in zip(y.shape, shape)))


def laid_shape(b: int, heads: int, n: int, size: int, plan: Plan) -> tuple[int, ...]:
    n = blocks(n, size) * size
    return (b, n, heads, plan.width) if plan.platform == CUDA else (b, heads, n, plan.width)


def spec(plan: Plan, n: int, place: Place, heads: int | None = None) -> pl.BlockSpec:
    """n positions of one head, (n, width), or of several."""

    def at(program):
        example, head, i = place(program)
        return (example, i, head, 0) if plan.platform == CUDA else (example, head, i, 0)

    return pl.BlockSpec((None, n, heads, plan.width) if plan.platform == CUDA else (None, heads, n, plan.width), at)


def numbers_spec(shape: tuple[int, int], place: Place, heads: int | None = None) -> pl.BlockSpec:
    """One number for each query, out of (b, heads, n, 1) or (b, heads, 1, n)."""

    def at(program):
        example, head, i = place(program)
        return (example, head, i, 0) if shape[1] == 1 else (example, head, 0, i)

    return pl.BlockSpec((None, heads, *shape), at)


def placed(program: Any, heads: int, n: int) -> tuple[Any, Any, Any]:
    """(example, head, block) of a program, for a grid in one row: a GPU's has at most three axes, and `jax.vmap` adds one."""
    return over(program, heads * n), rest(over(program, n), heads), rest(program, n)


def call(body: Any, name: str, programs: int, plan: Plan, **specs: Any) -> Callable[..., Any]:
    return pl.pallas_call(
        body, grid=(programs,), name=name, interpret=plan.interpret, compiler_params=compiler_params(plan), **specs
    )
