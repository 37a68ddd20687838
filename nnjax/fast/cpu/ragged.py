"""Products of rows with the matrix of their group, on a CPU: block by block of rows, each with one matrix.

XLA has no ragged product for a CPU: it multiplies every row with every matrix, and keeps as many copies of the rows as there
are groups. Here a group is cut into blocks, its last one perhaps short, so that at most a block for each group is in vain.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from ...linear import broadcast, wide

BLOCK = 128  # rows at a time: bench case `mixture_of_experts`


class Blocks(NamedTuple):
    """Of each block its group, its first row, and how many rows it has: 0 if it is not used."""

    group: Array
    start: Array
    count: Array


def blocks_of(sizes: Array, rows: int, block: int) -> Blocks:
    """As many blocks as rows in groups of any sizes can take.  sizes: int32 (groups,)."""
    groups = sizes.shape[0]
    most = (rows + groups * (block - 1)) // block
    needed = (sizes + (block - 1)) // block
    ends, first = jnp.cumsum(needed, dtype=jnp.int32), jnp.cumsum(sizes, dtype=jnp.int32) - sizes
    i = jnp.arange(most, dtype=jnp.int32)
    shape = (most, groups)
    group = (broadcast(i[:, None], shape) >= broadcast(ends[None], shape)).sum(1, dtype=jnp.int32)
    used = group < groups
    group = jnp.where(used, group, jnp.zeros_like(group))
    done = (i - (ends - needed)[group]) * block  # rows of the same group in the blocks before
    count = jnp.clip(sizes[group] - done, 0, block)
    return Blocks(group, first[group] + done, jnp.where(used, count, jnp.zeros_like(count)))


def _block(rows: int) -> int:
    return max(1, min(BLOCK, rows))


def _own(at: Blocks, begin: Array, block: int, columns: int) -> Array:
    """bool (block, columns): whether a row from `begin` on is one of the block's own."""
    row = begin + jnp.arange(block, dtype=jnp.int32)
    own = (row >= at.start) & (row < at.start + at.count)
    return broadcast(own[:, None], (block, columns))


def ragged_dot(x: Array, w: Array, sizes: Array, transposed: bool = False) -> Array:
    """`nnjax.layers.routing.ragged.ragged_dot`; transposed: with the transpose of each matrix, which is not copied."""
    rows, n, block = x.shape[0], w.shape[1 if transposed else 2], _block(x.shape[0])
    if not rows:
        return jnp.zeros_like(x, shape=(0, n))

    def step(y: Array, at: Blocks):
        begin = jnp.minimum(at.start, rows - block)  # the last block would end behind the last row
        own = lax.dynamic_index_in_dim(w, at.group, keepdims=False)
        part = lax.dynamic_slice_in_dim(x, begin, block) @ (own.T if transposed else own)
        part = jnp.where(_own(at, begin, block, n), part, lax.dynamic_slice_in_dim(y, begin, block))
        return lax.dynamic_update_slice_in_dim(y, part, begin, 0), None

    return lax.scan(step, jnp.zeros_like(x, shape=(rows, n)), blocks_of(sizes, rows, block))[0]


def ragged_dot_t(ct_y: Array, w: Array, sizes: Array) -> Array:
    """`nnjax.layers.routing.ragged.ragged_dot_t`."""
    return ragged_dot(ct_y, w, sizes, transposed=True)


def ragged_outer(x: Array, ct_y: Array, sizes: Array) -> Array:
    """`nnjax.layers.routing.ragged.ragged_outer`."""
    (rows, k), n, block = x.shape, ct_y.shape[1], _block(x.shape[0])
    zeros = jnp.zeros_like(x, shape=(sizes.shape[0], k, n), dtype=wide(x))
    if not rows:
        return zeros.astype(x.dtype)

    def step(ct_w: Array, at: Blocks):
        begin = jnp.minimum(at.start, rows - block)
        own, ct = (lax.dynamic_slice_in_dim(a, begin, block) for a in (x, ct_y))
        # the rows of other groups are 0 in both: 0 times what is not finite would be NaN
        own, ct = (jnp.where(_own(at, begin, *a.shape), a, jnp.zeros_like(a)) for a in (own, ct))
        return ct_w.at[at.group].add(jnp.matmul(own.T, ct, preferred_element_type=ct_w.dtype)), None

    return lax.scan(step, zeros, blocks_of(sizes, rows, block))[0].astype(x.dtype)
