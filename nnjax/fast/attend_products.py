"""The two steps that every spelling of attention takes: products of queries and keys, and their exponentials."""

import jax.numpy as jnp

from ..linear import broadcast, wide


def contract(spec, a, b):
    """The einsum of a and b, summed and given in at least float32."""
    return jnp.einsum(spec, a, b, preferred_element_type=wide(a))


def exp_less(s, m):
    """exp(s - m), m: one number for each query.  s: (..., q, k), m: (..., q)."""
    return jnp.exp(s - broadcast(m[..., None], s.shape))
