"""The steps of the linear cross-entropy's kernels: blocks of rows and classes, and the operations on one of each."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from ...linear import broadcast
from ..attend_products import contract
from . import steps
from .loss_plan import Grid, Plan
from .plan import CUDA, accumulator, blocks, installed, loop, over, rest

Of = Callable[[Any], Array]  # block of features -> those of some rows or classes


def placed(grid: Grid, plan: Plan) -> tuple[Any, Any, Any]:
    """(part, block of features, block owned) of a program: on a GPU, where the grid is one row, neighbours read the same."""
    program = pl.program_id(0)
    if plan.platform != CUDA:
        return 0, 0, program
    return over(program, grid.own * grid.features), rest(over(program, grid.own), grid.features), rest(program, grid.own)


def inside(sizes: tuple[int, int], firsts: tuple[Any, Any], shape: tuple[int, int]) -> Array | None:
    """Which entries of a block lie inside an array of these sizes; None for all."""
    found = None
    for axis, (size, first, n) in enumerate(zip(sizes, firsts, shape)):
        if size % n:
            here = steps.numbered(first, shape, axis) < size
            found = here if found is None else found & here
    return found


def triton() -> Any:
    """jax.experimental.pallas.triton, which can read and write blocks at the edge of an array."""
    return installed("pallas.triton")


def read(ref: Any, firsts: tuple[Any, Any], shape: tuple[int, int], plan: Plan, sizes: tuple[int, int]) -> Array:
    """The block that starts there, with zeros beyond the edge. On a TPU it is what ref holds, with anything beyond the edge."""
    mask = inside(sizes, firsts, shape)
    if plan.platform != CUDA:
        x = ref[...]
        return x if mask is None else steps.only(x, mask)
    at = ref.at[pl.ds(firsts[0], shape[0]), pl.ds(firsts[1], shape[1])]
    return triton().load(at, mask=mask, other=None if mask is None else jnp.zeros((), ref.dtype))


def write(ref: Any, x: Array, part: Any, firsts: tuple[Any, Any], plan: Plan) -> None:
    """Write x to its place in (parts, n, features), as far as it lies inside."""
    if plan.platform != CUDA:
        ref[...] = x
        return
    n, features = x.shape
    at = ref.at[part, pl.ds(firsts[0], n), pl.ds(firsts[1], features)]
    triton().store(at, x, mask=inside(ref.shape[1:], firsts, (n, features)))


def featured(ref: Any, i: Any, size: int, n: int, plan: Plan) -> Of:
    """The features of block i, of `size` of n rows or classes; read once if there is only one block of features."""

    def of(f):
        return read(ref, (i * size, f * plan.width), (size, plan.width), plan, (n, plan.features))

    if plan.width < plan.features:
        return of
    all_of_them = of(jnp.int32(0))
    return lambda f: all_of_them


def numbers(ref: Any, i: Any, plan: Plan, across: bool = False) -> Array:
    """One number for each row of block i: (rows, 1), or (1, rows)."""
    first, zero = i * plan.rows, jnp.int32(0)
    if across:
        return read(ref, (zero, first), (1, plan.rows), plan, (1, plan.count))
    return read(ref, (first, zero), (plan.rows, 1), plan, (plan.count, 1))


def products(spec: str, a: Of, b: Of, shape: tuple[int, int], plan: Plan) -> Array:
    """Scores: a contraction over all features, one block after another."""
    n = blocks(plan.features, plan.width)
    if n == 1:
        return contract(spec, a(0), b(0))
    zeros = jnp.zeros(shape, accumulator(a(jnp.int32(0)).dtype))
    return loop(0, n, lambda f, s: s + contract(spec, a(f), b(f)), zeros)


def hits(labels: Array, j: Any, shape: tuple[int, int], plan: Plan, axis: int = 1) -> Array:
    """Where the class of block j is the label of the row; classes along `axis`."""
    return broadcast(labels, shape) == steps.numbered(j * plan.columns, shape, axis)


def below(first: Any, n: int, shape: tuple[int, int], axis: int) -> Array:
    """Where the row or class, numbered along this axis from `first`, is one of n."""
    return steps.numbered(first, shape, axis) < n


def ct_scores(s: Array, log_z: Array, share: Array, hit: Array) -> Array:
    """share (softmax(s) - onehot), the cotangent of s.  log_z, share: one for each row."""
    share = broadcast(share, s.shape)
    return jnp.exp(steps.less(s, log_z)) * share - steps.only(share, hit)


def gathered(refs: Any, start: Any, step: Callable[..., Any], grid: Grid, part: Any, plan: Plan) -> Any:
    """Apply step(j, carry) from the start past the blocks of this part; on a TPU past one, with the carry in refs."""
    if plan.platform == CUDA:
        first = part * grid.each
        return loop(first, jnp.minimum(first + grid.each, jnp.int32(grid.past)), step, start)
    j = pl.program_id(1)
    before = tuple(jnp.where(broadcast(j == 0, x.shape), x, ref[...]) for x, ref in zip(start, refs, strict=True))
    return step(j, before)
