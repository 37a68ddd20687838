"""Sequences step by step: what the definitions and the pairs of all recurrent layers share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...linear import broadcast


def time_first(x: Array) -> Array:
    """(batch, time, n) -> (time, batch, n), or back: it is its own transpose."""
    return jnp.swapaxes(x, 0, 1)


def one_earlier(y: Array, first: Any) -> Array:
    """first, y_1 ... y_{T-1}: the state at the start of each step.  y: (batch, time, n), first: (batch, n)."""
    return jnp.concatenate([first[:, None], y], 1)[:, : y.shape[1]]


def one_later(y: Array, last: Any) -> Array:
    """y_2 ... y_T, last.  y: (batch, time, n), last: (batch, n)."""
    return jnp.concatenate([y, last[:, None]], 1)[:, 1:]


def over_time(
    step: Callable[..., Any], x: Array, state: Any, lengths: Array | None = None, truncate: int | None = None
) -> tuple[Array, Any]:
    """(y, last state) of state, y_t = step(state, x_t) for every step t.  x: (batch, time, n), y: (batch, time, m).

    lengths: int32 (batch,): from there on y is 0 and the state stays as it is.  truncate: no derivative goes back through
    the state at steps that are multiples of it.
    """

    def one(state, now):
        t, x_t = now
        before = state
        if truncate is not None:
            cut = (t > 0) & (t % truncate == 0)
            before = jax.tree.map(lambda s: jnp.where(cut, lax.stop_gradient(s), s), state)
        after, y = step(before, x_t)
        if lengths is not None:
            real = broadcast((t < lengths)[:, None], y.shape)
            after = jax.tree.map(lambda new, old: jnp.where(real, new, old), after, state)
            y = jnp.where(real, y, jnp.zeros_like(y))
        return after, y

    numbers = None if lengths is None and truncate is None else jnp.arange(x.shape[1], dtype=jnp.int32)
    state, y = lax.scan(one, state, (numbers, time_first(x)))
    return time_first(y), state


def past(lengths: Array, time: int) -> Array:
    """bool (batch, time): True from each length on, where a sequence is padding."""
    return jnp.arange(time, dtype=jnp.int32)[None] >= lengths[:, None]


def without(x: Array, padding: Array | None) -> Array:
    """y = x, and 0 in the padding, whatever is there.  x: (batch, time, n).

    A diagonal map is its own transpose: it also clears the cotangents of the padding.
    """
    return x if padding is None else jnp.where(broadcast(padding[..., None], x.shape), jnp.zeros_like(x), x)


def at_end(y: Array, first: Array, lengths: Array) -> Array:
    """y at each last real step, first where there is none.  y: (batch, time, n), first: (batch, n), lengths: (batch,)."""
    if y.shape[1] == 0:
        return first
    found = jnp.take_along_axis(y, jnp.maximum(lengths - 1, 0)[:, None, None], 1)[:, 0]
    return jnp.where(broadcast((lengths > 0)[:, None], first.shape), found, first)


def at_end_t(ct: Array, lengths: Array, time: int) -> tuple[Array, Array]:
    """(ct_y, ct_first): the cotangent put back at the step, or the state, that it was taken from; zeros elsewhere."""
    here = jnp.arange(time, dtype=jnp.int32)[None] == lengths[:, None] - 1
    ct_y = without(broadcast(ct[:, None], (ct.shape[0], time, ct.shape[1])), ~here)
    return ct_y, jnp.where(broadcast((lengths == 0)[:, None], ct.shape), ct, jnp.zeros_like(ct))


def gate_weights(key: Any, n_in: int, n_hidden: int, gates: int) -> tuple[Array, Array]:
    """W: (n_in, gates n_hidden), Glorot's for each gate, and U: (n_hidden, gates n_hidden), orthogonal for each."""
    w_init, u_init = jax.nn.initializers.glorot_uniform(), jax.nn.initializers.orthogonal()
    keys = jax.random.split(key, (2, gates))
    w = [w_init(k, (n_in, n_hidden), jnp.float32) for k in keys[0]]
    u = [u_init(k, (n_hidden, n_hidden), jnp.float32) for k in keys[1]]
    return jnp.concatenate(w, 1), jnp.concatenate(u, 1)
