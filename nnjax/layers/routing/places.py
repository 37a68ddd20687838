"""The places of tokens sorted by expert: a copy of each for every expert that it chose, and back to one row for each token.

To copy and to sum are each other's transpose, and a permutation's transpose is its inverse. So nothing is scattered: both ways
rows are looked up, one way by the order, the other by its inverse.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from ...linear import broadcast


class Places(NamedTuple):
    """Where the choices go. order: (tokens k,), the numbers of the choices, token by token, sorted by expert; inverse: (tokens,
    k), where in that order each choice stands; sizes: int32 (experts,), the choices of each expert."""

    order: Array
    inverse: Array
    sizes: Array


def by_expert(ids: Array, experts: int) -> Places:
    """The places of ids: (tokens, k), those of an expert in the order of the tokens."""
    flat = ids.reshape(-1)
    numbers = jnp.arange(flat.size, dtype=jnp.int32)
    _, order = lax.sort((flat, numbers), num_keys=1, is_stable=True)
    inverse = jnp.zeros_like(order).at[order].set(numbers, mode="promise_in_bounds", unique_indices=True)
    shape = (flat.size, experts)
    of = broadcast(flat[:, None], shape) == broadcast(jnp.arange(experts, dtype=flat.dtype)[None], shape)
    return Places(order, inverse.reshape(ids.shape), of.sum(0, dtype=jnp.int32))


def rows_at(x: Array, at: Array) -> Array:
    """The entries of x along its first axis at these places, all of which are there."""
    return x.at[at].get(mode="promise_in_bounds")


def spread(x: Array, at: Places) -> Array:
    """A copy of each token for each expert that it chose, sorted by expert.  x: (tokens, n) -> (tokens k, n)."""
    return rows_at(x, at.order // at.inverse.shape[1])


def spread_t(ct_y: Array, at: Places) -> Array:
    """ct_x: the copies brought back by the inverse permutation, and summed, as the transpose of a copy is a sum."""
    return rows_at(ct_y, at.inverse).sum(1)


def joined(y: Array, g: Array, at: Places) -> Array:
    """z_t = sum over the choices j of token t of g_tj y_(its place).  y: (tokens k, n), g: (tokens, k), z: (tokens, n).

    Linear in y, transpose `joined_t`, and in g, whose cotangent is <y_(its place), ct_z_t>.
    """
    own = rows_at(y, at.inverse)
    return (broadcast(g[:, :, None], own.shape) * own.astype(g.dtype)).sum(1).astype(y.dtype)


def joined_t(ct_z: Array, g: Array, at: Places) -> Array:
    """ct_y: each token's cotangent, times the weight of the choice, at its place."""
    ct = spread(ct_z, at)
    return (broadcast(sorted_gates(g, at)[:, None], ct.shape) * ct.astype(g.dtype)).astype(ct_z.dtype)


def sorted_gates(g: Array, at: Places) -> Array:
    """The weights in the order of the places: (tokens, k) -> (tokens k,)."""
    return rows_at(g.reshape(-1), at.order)
