"""The steps of attention's kernels, each on one block of queries and keys."""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from ...linear import broadcast
from .plan import CUDA, Plan, blocks, over


def numbered(first: Any, shape: tuple[int, int], axis: int) -> Array:
    """The number of the query or key of each entry, along one axis."""
    return first + lax.broadcasted_iota(jnp.int32, shape, axis)


def seen(i: Any, j: Any, plan: Plan, causal: bool, keys_first: bool = False) -> Array:
    """bool (rows, columns), or its transpose: which keys of block j the queries of block i see."""
    shape, axes = ((plan.columns, plan.rows), (1, 0)) if keys_first else ((plan.rows, plan.columns), (0, 1))
    query, key = numbered(i * plan.rows, shape, axes[0]), numbered(j * plan.columns, shape, axes[1])
    inside = (query < plan.queries) & (key < plan.keys)
    return inside & (query >= key) if causal else inside


def keys_behind(i: Any, plan: Plan, causal: bool) -> Any:
    """The first block of keys that no query of block i sees."""
    every = blocks(plan.keys, plan.columns)
    return jnp.minimum(jnp.int32(every), over((i + 1) * plan.rows + plan.columns - 1, plan.columns)) if causal else every


def queries_from(j: Any, plan: Plan, causal: bool) -> Any:
    """The first block of queries that sees a key of block j."""
    return over(j * plan.columns, plan.rows) if causal else 0


def only(x: Array, seen: Array, other: float = 0.0) -> Array:
    return jnp.where(seen, x, jnp.full_like(x, other))


def finite(x: Array, causal: bool) -> Array:
    """x; if queries do not see all keys, with 0 instead of NaN or infinity, as 0 times these is NaN."""
    return jnp.where(x * 0 == 0, x, jnp.zeros_like(x)) if causal else x


def row_sum(x: Array) -> Array:
    """One number for each row.  (rows, columns) -> (rows, 1)."""
    return x.sum(-1, keepdims=True)


def rescaled(x: Array, factor: Array) -> Array:
    """x, each row multiplied by its number.  x: (rows, columns), factor: (rows, 1)."""
    return x * broadcast(factor, x.shape)


def scaled(x: Array, plan: Plan) -> Array:
    """x / sqrt(d): it makes scores of products and, as scaling is its own transpose, cotangents of cotangents."""
    return x * (1 / math.sqrt(plan.features))


def less(x: Array, number: Array) -> Array:
    """x - number, one for each row or each column.  number: (rows, 1) or (1, columns)."""
    return x - broadcast(number, x.shape)


def head_of(ref: Any, head: Any, i: Any, plan: Plan) -> Array:
    """Block i of the queries of one of the g heads of a program."""
    at = pl.ds(i * plan.rows, plan.rows)
    return ref[at, head, :] if plan.platform == CUDA else ref[head, at, :]
