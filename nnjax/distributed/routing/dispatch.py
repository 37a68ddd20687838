"""Rows travel to the device that has their expert, and what it makes of them back.

The devices of the axis have tokens of their own. Which of them go where is known only at run time, so there is room for all of
a device's rows in the block for each other one: as no token is dropped, they may all go to the same. A message therefore
carries as many times the rows as there are devices, most of them empty, and each device has room for the rows of all.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from ...layers.routing.experts import Experts, experts_bwd, experts_fwd
from ...layers.routing.places import Places, by_expert, rows_at
from ...layers.routing.ragged import FAST
from ...linear import broadcast
from ..collectives import exchange, exchange_t


class Routes(NamedTuple):
    """leave: int32 (devices, rows), which of its rows a device sends to each, `rows` where none; back: (rows,), where
    each row stands in what comes back; at: the places of what arrives, sorted by this device's experts, the empty last."""

    leave: Array
    back: Array
    at: Places


def routes_of(sizes: Array, rows: int, axis: str) -> Routes:
    """The routes of rows sorted by expert.  sizes: int32 (all experts,), how many of this device's rows each one gets."""
    devices = lax.axis_size(axis)
    sizes = sizes.reshape(devices, -1)
    own, j = sizes.shape[1], jnp.arange(rows, dtype=jnp.int32)
    count = sizes.sum(1, dtype=jnp.int32)
    ends = jnp.cumsum(count, dtype=jnp.int32)
    first, shape = ends - count, (devices, rows)
    there = broadcast(j[None], shape) < broadcast(count[:, None], shape)
    row = broadcast(j[None], shape) + broadcast(first[:, None], shape)
    leave = jnp.where(there, row, jnp.full_like(row, rows))
    to = (broadcast(j[:, None], (rows, devices)) >= broadcast(ends[None], (rows, devices))).sum(1, dtype=jnp.int32)
    back = to * rows + j - rows_at(first, to)
    got = jnp.cumsum(exchange(sizes, axis), 1, dtype=jnp.int32)  # of each sender, the ends of its rows for each expert here
    shape = (devices, rows, own)
    behind = broadcast(j[None, :, None], shape) >= broadcast(got[:, None], shape)
    at = by_expert(behind.sum(2, dtype=jnp.int32).reshape(-1, 1), own + 1)
    return Routes(leave, back, at._replace(sizes=at.sizes[:own]))


def dispatch(x: Array, routes: Routes, axis: str) -> Array:
    """The rows of all devices for the experts of this one, sorted by expert; zeros behind them.

    x: (rows, n), sorted by expert -> (devices rows, n). Each row goes to one place, so the transpose brings it back
    (`dispatch_t`).
    """
    blocks = x.at[routes.leave].get(mode="fill", fill_value=0)
    there = exchange(blocks, axis)
    return rows_at(there.reshape(-1, x.shape[1]), routes.at.order)


def dispatch_t(ct_y: Array, routes: Routes, axis: str) -> Array:
    """ct_x: (rows, n): every row back to the device and the place that it came from."""
    blocks = rows_at(ct_y, routes.at.inverse.reshape(routes.leave.shape))
    here = exchange_t(blocks, axis)
    return rows_at(here.reshape(-1, ct_y.shape[1]), routes.back)


def travelling_fwd(params: Experts, x: Array, sizes: Array, activation: str, *, axis: str) -> Any:
    """`experts_fwd` with the experts of this device, and rows for all of them."""
    routes = routes_of(sizes, x.shape[0], axis)
    x = dispatch(x, routes, axis)
    y, z = experts_fwd(params, x, routes.at.sizes, activation, FAST)
    return dispatch_t(y, routes, axis), (x, z, routes)


def travelling_bwd(
    params: Experts, x: Array, kept: Any, gates: Array, ct: Array, sizes: Array, activation: str, *, axis: str
) -> tuple[Experts, Array, Array]:
    x, z, routes = kept
    gates = dispatch(gates[:, None], routes, axis)[:, 0]
    ct_params, ct_x, ct_gates = experts_bwd(
        params, x, z, gates, dispatch(ct, routes, axis), routes.at.sizes, activation, FAST
    )  # fmt: skip
    return ct_params, dispatch_t(ct_x, routes, axis), dispatch_t(ct_gates[:, None], routes, axis)[:, 0]
