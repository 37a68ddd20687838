"""Time in windows: the loop that every recurrent layer shares, and the two maps applied to a whole window at once.

A recurrence is a loop of small steps. What a step needs besides the state is better computed for many steps at once: one
matrix product for a window of inputs before its steps, and one for the weights' cotangents after them. Windows also bound
the memory: besides the outputs, nothing is kept for all time steps.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...linear import broadcast_t, fold, wide

# Steps in a window: a small batch needs more of them for a good product (bench case `tanh rnn`).
WINDOW, LONG_WINDOW = 16, 80
SMALL_BATCH, LONG = 8, 320  # up to this batch, and from this many steps on, windows are long


def window_length(batch: int, steps: int) -> int:
    """The number of steps in a window."""
    return LONG_WINDOW if batch <= SMALL_BATCH and steps >= LONG else WINDOW


def over_windows(body: Callable[[Any, Any, int], Any], carry: Any, batch: int, steps: int, *, reverse: bool = False) -> Any:
    """carry = body(carry, start, length) for every window of steps in turn; the last one may be shorter.

    With `reverse` the windows run from the end, the short one first. start may be a traced int32, length is an int.
    """
    each = window_length(batch, steps)
    whole, rest = divmod(steps, each)
    if rest and reverse:
        carry = body(carry, whole * each, rest)
    if whole:
        starts = jnp.arange(0, whole * each, each, dtype=jnp.int32)
        carry, _ = lax.scan(lambda c, start: (body(c, start, each), None), carry, starts, reverse=reverse)
    if rest and not reverse:
        carry = body(carry, whole * each, rest)
    return carry


def window(x: Array, start: Any, length: int) -> Array:
    """The steps start ... start + length - 1 of x, time first.  x: (batch, time, n), y: (length, batch, n)."""
    return jnp.swapaxes(lax.dynamic_slice_in_dim(x, start, length, 1), 0, 1)


def window_t(ct_x: Array, ct_y: Array, start: Any) -> Array:
    """ct_x: (batch, time, n) with ct_y: (length, batch, n) put at its steps.

    The transpose of `window` adds ct_y there; every step lies in only one window, so it may overwrite the zeros.
    """
    return lax.dynamic_update_slice_in_dim(ct_x, jnp.swapaxes(ct_y, 0, 1), start, 1)


def before(x: Array, first: Array, start: Any, x_window: Array) -> Array:
    """The window one step earlier: x_{start-1} ... x_{start+length-2}, where x_{-1} is `first`.

    x: (batch, time, n), first: (batch, n), x_window and y: (length, batch, n).
    """
    last = lax.dynamic_index_in_dim(x, jnp.maximum(start - 1, 0), 1, keepdims=False)
    return jnp.concatenate([jnp.where(start == 0, first, last)[None], x_window[:-1]])


def keep(kept: tuple[Array, ...], new: tuple[Array, ...], start: Any) -> tuple[Array, ...]:
    """kept, each (time, batch, n), with new, each (length, batch, n), put at start."""
    return tuple(lax.dynamic_update_slice_in_dim(k, v, start, 0) for k, v in zip(kept, new))


def kept_at(kept: tuple[Array, ...], start: Any, length: int) -> tuple[Array, ...]:
    """The kept arrays for the steps start ... start + length - 1."""
    return tuple(lax.dynamic_slice_in_dim(k, start, length, 0) for k in kept)


def weights_t(x: Array, ct_y: Array, dtype: Any) -> tuple[Array, Array]:
    """(ct_W, ct_b) of y = x W + b, over all leading axes and in `dtype`: W and b were used at every step.  ct_W = xᵀ ct_y."""
    ct_w = jnp.matmul(fold(x).T, fold(ct_y), preferred_element_type=dtype)
    return ct_w, broadcast_t(ct_y.astype(dtype), ct_y.shape[-1:])


def accumulators(params: Any) -> Any:
    """Zeros like the parameters, in float32 at least, to which each window adds its share of their cotangent."""
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=wide(p)), params)


def accumulated(ct_params: Any, params: Any) -> Any:
    """The sums in the dtypes of the parameters."""
    return jax.tree.map(lambda ct, p: ct.astype(p.dtype), ct_params, params)
