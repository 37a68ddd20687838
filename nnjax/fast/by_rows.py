"""A function of many rows, for some of them at a time, so that what it makes of all rows never exists at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..linear import pad
from ..trees.varying import varying_as


def zeros_like(x: Array, dtype: Any) -> Array:
    """Zeros of the shape of x, which vary over the devices as x does, made where they are used: a loop does not keep them."""
    return varying_as(jnp.zeros(x.shape, dtype), jax.typeof(x))


def in_chunks(f: Callable[..., Any], each: Any, whole: Any, like: Any, size: int, dtype: Any) -> tuple[Any, Any]:
    """f(each, whole) -> (of each row, sums over the rows), from `size` rows at a time.

    each: a tree of arrays (n, ...), padded with zeros to a multiple of `size`; whole: what every chunk takes;
    like: a tree of arrays with the shapes of the sums, which are kept in this dtype.
    """
    n = jax.tree.leaves(each)[0].shape[0]

    def cut(t):
        t = pad(t, ((0, -n % size), *((0, 0),) * (t.ndim - 1)))
        return t.reshape(t.shape[0] // size, size, *t.shape[1:])  # not -1: a width may be 0

    def step(sums, chunk):
        rows, more = f(chunk, whole)
        return jax.tree.map(jnp.add, sums, more), rows

    sums, rows = lax.scan(step, jax.tree.map(lambda x: zeros_like(x, dtype), like), jax.tree.map(cut, each))
    return jax.tree.map(lambda t: t.reshape(t.shape[0] * size, *t.shape[2:])[:n], rows), sums
