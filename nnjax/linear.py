"""Linear maps that recur, each directly above its transpose.

A map `A` and its transpose `A_t` satisfy  <y, A x> = <A_t y, x>  for every x and y. That identity is
the whole of the backward pass: where a forward pass applies `A`, its backward pass applies `A_t`.
Matrices need no name here: their transpose is written `.T` where it is used.
"""

import math

import jax.numpy as jnp
from jax import Array


def broadcast(x: Array, shape: tuple[int, ...]) -> Array:
    """y = x copied along new leading axes and along axes of size 1.  x: any shape that broadcasts to `shape`.

    Its transpose is a sum over the copies (`broadcast_t`). Raises ValueError where x does not broadcast to `shape`.
    """
    return jnp.broadcast_to(x, shape)


def broadcast_t(ct_y: Array, shape: tuple[int, ...]) -> Array:
    """ct_x = ct_y summed over every axis along which `broadcast` had copied x.  shape: that of x."""
    new = ct_y.ndim - len(shape)
    ct_x = ct_y.sum(tuple(range(new)))
    copied = tuple(i for i, n in enumerate(shape) if n == 1 and ct_x.shape[i] != 1)
    return ct_x.sum(copied, keepdims=True)


def fold(x: Array) -> Array:
    """x: (..., n) -> (rows, n): all leading axes made one, so that a contraction over them is one matrix product.

    Reshaping only renames entries: the transpose is the reshape back (`fold_t`).
    """
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def fold_t(ct_y: Array, shape: tuple[int, ...]) -> Array:
    """ct_y: (rows, n) -> `shape`, that of the x that was folded."""
    return ct_y.reshape(shape)
