"""Many small mlps without biases, each over its own rows: two ragged products and an activation between them."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from ...linear import broadcast, widened
from ..activation import gelu_tanh_apply, gelu_tanh_bwd, silu_apply, silu_bwd
from .ragged import PLAIN, Products

WIDTHS = {"swiglu": 2, "gelu": 1}  # columns of `up` for each hidden neuron


class Experts(NamedTuple):
    """up: (experts, n, hidden), or for swiglu (experts, n, 2 hidden), the gate's columns first; down: (experts, hidden, n)."""

    up: Array
    down: Array


def activated(z: Array, activation: str) -> Array:
    """h = gelu(z), by tanh; or for swiglu h = silu(a) b, z = (a, b) cut in half along its last axis (Shazeer 2020)."""
    if activation == "gelu":
        return gelu_tanh_apply(z)
    a, b = jnp.split(z, 2, -1)
    return silu_apply(a) * b


def activated_bwd(z: Array, ct_h: Array, activation: str) -> Array:
    if activation == "gelu":
        return gelu_tanh_bwd((z,), ct_h)
    a, b = jnp.split(z, 2, -1)
    return jnp.concatenate((silu_bwd((a,), ct_h * b), ct_h * silu_apply(a)), -1)


def experts_fwd(params: Experts, x: Array, sizes: Array, activation: str, by: Products = PLAIN) -> Any:
    """(y, z): y_r = activated(z_r) D_e, z_r = x_r U_e, e the expert of row r.  x, y: (rows, n), sorted by expert."""
    z = by.dot(x, params.up, sizes)
    return by.dot(activated(z, activation), params.down, sizes), z


def experts_bwd(
    params: Experts, x: Array, z: Array, gates: Array, ct: Array, sizes: Array, activation: str, by: Products = PLAIN
) -> tuple[Experts, Array, Array]:
    """(ct_params, ct_x, ct_gates) of y_r times gates_r.  ct: (rows, n), its cotangent; gates: (rows,).

    y itself is not needed: <y, ct> = <h D, ct> = <h, ct Dᵀ>, and ct Dᵀ goes on to h.
    """
    h, back = activated(z, activation), by.dot_t(ct, params.down, sizes)
    ct_gates = (widened(h) * widened(back)).sum(-1).astype(gates.dtype)
    ct_down = by.outer(h, _times(ct, gates), sizes)
    ct_z = activated_bwd(z, _times(back, gates), activation)
    ct_up = by.outer(x, ct_z, sizes)
    return Experts(ct_up, ct_down), by.dot_t(ct_z, params.up, sizes), ct_gates


def _times(x: Array, gates: Array) -> Array:
    return (x.astype(gates.dtype) * broadcast(gates[:, None], x.shape)).astype(x.dtype)
