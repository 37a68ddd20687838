"""The linear recurrence on a CPU: one step after another.

Joined by pairs, a sequence is read log2(time) times, and the products of a are kept besides. XLA's loop costs a CPU next to
nothing, so a single pass is fastest at every size, and it keeps only the state (bench case `linear_recurrence`). Each step
reads and writes its place in the arrays as they are: with time first they would all be copied.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ...linear import wide, widened


def _at(x: Array, t: Any) -> Array:
    return widened(lax.dynamic_index_in_dim(x, t, 1, keepdims=False))


def _put(x: Array, value: Array, t: Any) -> Array:
    return lax.dynamic_update_index_in_dim(x, value.astype(x.dtype), t, 1)


def recur(a: Array, b: Array, h: Array, *, reverse: bool = False) -> Array:
    """h_t = a_t h_{t-1} + b_t, in float32 at least.  a, b and the result: (batch, time, n), h: (batch, n)."""

    def step(carry, t):
        h, y = carry
        h = _at(a, t) * h + _at(b, t)
        return (h, _put(y, h, t)), None

    time, y = a.shape[1], jnp.zeros_like(b, dtype=wide(b))
    return lax.scan(step, (widened(h), y), jnp.arange(time, dtype=jnp.int32), reverse=reverse)[0][1] if time else y


def recur_bwd(residuals: Any, ct_y: Array, *, reverse: bool = False) -> Any:
    """(ct_a, ct_b, ct_h), from the residuals (a, h, y)."""
    a, h, y = residuals
    time, one = a.shape[1], -1 if reverse else 1
    if not time:
        return a, ct_y, jnp.zeros_like(h)

    def step(carry, t):
        ct_h, ct_a, ct_b = carry
        ct_h = ct_h + _at(ct_y, t)  # h_t was used twice, as output and in the next step: the two cotangents add
        before = jnp.where(t == (time - 1 if reverse else 0), widened(h), _at(y, jnp.clip(t - one, 0, time - 1)))
        return (_at(a, t) * ct_h, _put(ct_a, ct_h * before, t), _put(ct_b, ct_h, t)), None

    start = jnp.zeros_like(h, dtype=wide(h)), jnp.zeros_like(a), jnp.zeros_like(a)
    (ct_h, ct_a, ct_b), _ = lax.scan(step, start, jnp.arange(time, dtype=jnp.int32), reverse=not reverse)
    return ct_a, ct_b, ct_h.astype(h.dtype)
