"""How the kernels of the linear cross-entropy divide their work: blocks by platform, dtype and width, and what fits at all."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from .plan import DTYPES, LEAST, TPU, TPU_LANES, blocks, power_of_two

# (Most features at a time, most bytes of a number, rows and classes at a time, warps, stages): blocks that fit into the
# registers and shared memory of an H100, as its compiler reports.
CUDA_BLOCKS = (
    (64, 2, 128, 64, 8, 2),
    (64, 4, 64, 64, 8, 2),
    (128, 2, 64, 64, 8, 2),
    (128, 4, 64, 64, 8, 2),
    (256, 2, 64, 64, 8, 2),
    (256, 4, 64, 32, 8, 1),
)
CUDA_WIDTH = 256  # features at a time, at most
CUDA_PROGRAMS = 132  # enough to use all of an H100
TPU_BLOCKS = (512, 256, 128)  # rows and classes at a time: the first that fits
TPU_BYTES = 13 << 20  # of all blocks of one step, and of the next ones, which are loading
MOST = 2**31  # numbers in an array that a kernel indexes with an int32


class Plan(NamedTuple):
    """count, classes, features: the numbers of rows, classes and features; rows, columns: rows and classes at a time.

    width: features at a time; programs: the least number wanted, so that with few blocks of rows several programs share the
    classes; warps, stages: for a GPU, else 0. interpret: run by XLA, operation by operation, on any platform.
    """

    platform: str
    count: int
    classes: int
    features: int
    rows: int
    columns: int
    width: int
    programs: int = 0
    warps: int = 0
    stages: int = 0
    interpret: bool = False


class Grid(NamedTuple):
    """The blocks that programs own, each with `features` blocks of features; the blocks that each runs past, in `parts`."""

    own: int
    features: int
    past: int
    parts: int
    each: int


def grid_of(own: int, features: int, past: int, plan: Plan) -> Grid:
    """A TPU's programs run one after the other, and need no parts."""
    parts = min(past, max(1, blocks(plan.programs, own * features)))
    each = blocks(past, parts)
    return Grid(own, features, past, blocks(past, each), each)  # every part has a block


def rows_grid(plan: Plan, features: int) -> Grid:
    return grid_of(blocks(plan.count, plan.rows), features, blocks(plan.classes, plan.columns), plan)


def classes_grid(plan: Plan, features: int) -> Grid:
    return grid_of(blocks(plan.classes, plan.columns), features, blocks(plan.count, plan.rows), plan)


def plan_for(platform: str, h: Any, w: Any) -> Plan | None:
    """The plan for rows like h: (n, d) and a table like w: (v, d), or None if the kernels do not fit.

    With one class every probability is 1 and the cotangent of its score is 0, but p - 1 is 0 only up to rounding.
    """
    (n, d), v = h.shape, w.shape[0]
    if h.dtype not in DTYPES or w.dtype != h.dtype or 0 in (n, d) or v < 2 or max(n, v) * d >= MOST:
        return None
    least = LEAST[platform]
    if platform == TPU:
        fits = [size for size in TPU_BLOCKS if held(size, d, h.dtype.itemsize) <= TPU_BYTES]
        if not fits or h.dtype == jnp.float16:
            return None
        rows, columns = (min(fits[0], max(least, power_of_two(many))) for many in (n, v))
        return Plan(platform, n, v, d, rows, columns, d)
    width = min(CUDA_WIDTH, max(least, power_of_two(d)))
    rows, columns, warps, stages = next(row[2:] for row in CUDA_BLOCKS if width <= row[0] and h.dtype.itemsize <= row[1])
    rows, columns = (min(most, max(least, power_of_two(many))) for most, many in ((rows, n), (columns, v)))
    return Plan(platform, n, v, d, rows, columns, width, CUDA_PROGRAMS, warps, stages)


def held(size: int, d: int, itemsize: int) -> int:
    """Bytes of one step of a TPU: blocks of h and w, and of a float32 cotangent, each twice; four of products."""
    return 2 * size * blocks(d, TPU_LANES) * TPU_LANES * (2 * itemsize + 4) + 4 * 4 * size**2
