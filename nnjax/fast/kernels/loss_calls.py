"""How the arrays of the linear cross-entropy are passed to its kernels: whole on a GPU, in blocks on a TPU."""

from collections.abc import Callable
from typing import Any

from jax import Array
from jax.experimental import pallas as pl

from .loss_plan import Grid, Plan
from .plan import CUDA, compiler_params, outline_of

OWN, PAST = 0, 1  # whose block it is: the program's own, or one that it runs past


def spec(shape: tuple[int, int], size: int, whose: int, plan: Plan, across: bool = False) -> pl.BlockSpec:
    """An array (n, features), or numbers (n, 1) or, across, (1, n), `size` of them at a time."""
    if plan.platform == CUDA:
        return pl.BlockSpec(shape, lambda program: (0, 0))
    if across:
        return pl.BlockSpec((1, size), lambda *programs: (0, programs[whose]))
    return pl.BlockSpec((size, shape[1]), lambda *programs: (programs[whose], 0))


def out_spec(shape: tuple[int, int, int], size: int, plan: Plan) -> pl.BlockSpec:
    """(parts, n, features): the program's own block; on a TPU there is one part."""
    if plan.platform == CUDA:
        return pl.BlockSpec(shape, lambda program: (0, 0, 0))
    return pl.BlockSpec((None, size, shape[2]), lambda i, j: (0, i, 0))


def call(body: Any, name: str, grid: Grid, plan: Plan, out: list[tuple[int, int]], size: int, dtype: Any, *,
         in_specs: list[pl.BlockSpec], like: tuple[Array, ...]) -> Callable[..., list[Array]]:  # fmt: skip
    """out: (n, features) of each result, which is returned as (parts, n, features), varying as the arrays `like` do."""
    shapes = [(grid.parts, *shape) for shape in out]
    return pl.pallas_call(
        body, name=name, interpret=plan.interpret, compiler_params=compiler_params(plan),
        grid=(grid.parts * grid.features * grid.own,) if plan.platform == CUDA else (grid.own, grid.past),
        in_specs=in_specs, out_specs=[out_spec(shape, size, plan) for shape in shapes],
        out_shape=[outline_of(shape, dtype, *like) for shape in shapes],
    )  # fmt: skip
