"""The two steps that every spelling of attention takes: products of queries and keys, and their exponentials."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from ..linear import broadcast, wide


def contract(spec: str, a: Array, b: Any) -> Array:
    """The einsum of a and b, summed and returned in at least float32."""
    return jnp.einsum(spec, a, b, preferred_element_type=wide(a))


def exp_less(s: Array, m: Array) -> Array:
    """exp(s - m), m: one number for each query.  s: (..., q, k), m: (..., q)."""
    return jnp.exp(s - broadcast(m[..., None], s.shape))
