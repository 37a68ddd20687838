"""The recurrent layers in windows of time: the plain pairs of `nnjax.layers`, with the common work of a window done at once.

Each fwd returns (y, last state, other residuals), each bwd takes the residuals (params, x, state, y, kept).
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ...linear import affine
from .windows import accumulated, accumulators, before, keep, kept_at, over_windows, weights_t, window, window_t


def _forward(step: Callable[..., Any], params: Any, x: Array, state: Any, n: int, kept: int = 0, change: Any = None) -> Any:
    """step(state, a_t) -> (state, (h, what is kept)) in every window, a_t = x_t W + b; h and each kept array have n columns.

    change(a, start, length): what is done to the a of a window first.
    """

    def steps(carry, start, length):
        state, y, kept = carry
        a = affine(window(x, start, length), params.w, params.b)
        state, (h, new) = lax.scan(step, state, a if change is None else change(a, start, length))
        return state, window_t(y, h, start), keep(kept, new, start)

    batch, time, _ = x.shape
    start = (state, jnp.zeros_like(x, shape=(batch, time, n)), (jnp.zeros_like(x, shape=(time, batch, n)),) * kept)
    last, y, found = over_windows(steps, start, batch, time)
    return y, last, found


def rnn_fwd(params: Any, x: Array, h: Array, *, activate: Any) -> Any:
    def step(h, a_t):
        h = activate(a_t + h @ params.u)
        return h, (h, ())

    return _forward(step, params, x, h, h.shape[-1])


def rnn_bwd(residuals: Any, cts: Any, *, slope: Any) -> Any:
    params, x, first, y, _ = residuals
    ct_y, ct_h = cts
    w_t, u_t = params.w.T, params.u.T

    def step(ct_h, known):
        ct_y_t, slope_t = known
        ct_a = (ct_y_t + ct_h) * slope_t  # h_t was used twice, as output and as state: the two cotangents add
        return ct_a @ u_t, ct_a  # forward, h_{t-1} U; back, ct_a U.T

    def steps(carry, start, length):
        ct_h, ct_p, ct_x = carry
        x_window, h = window(x, start, length), window(y, start, length)
        ct_h, ct_a = lax.scan(step, ct_h, (window(ct_y, start, length), slope(h)), reverse=True)
        ct_w, ct_b = weights_t(x_window, ct_a, ct_p.w.dtype)
        ct_u, _ = weights_t(before(y, first, start, h), ct_a, ct_p.u.dtype)
        ct_p = ct_p._replace(w=ct_p.w + ct_w, u=ct_p.u + ct_u, b=ct_p.b + ct_b)
        return ct_h, ct_p, window_t(ct_x, affine(ct_a, w_t), start)

    start = (ct_h, accumulators(params), jnp.zeros_like(x))
    ct_h, ct_p, ct_x = over_windows(steps, start, *x.shape[:2], reverse=True)
    return accumulated(ct_p, params), ct_x, ct_h


def gru_fwd(params: Any, x: Array, h: Array, *, gates: Any) -> Any:
    def step(h, a_t):
        found = gates(a_t, h @ params.u, params.b_u)
        _, z, n, _ = found
        h = (1 - z) * n + z * h
        return h, (h, found)

    return _forward(step, params, x, h, h.shape[-1], 4)  # r, z, n, v


def gru_bwd(residuals: Any, cts: Any) -> Any:
    params, x, first, y, kept = residuals
    ct_y, ct_h = cts
    w_t, u_t = params.w.T, params.u.T

    def step(ct_h, known):
        ct_y_t, slopes, z = known
        ct_h = ct_y_t + ct_h  # h_t was used twice, as output and as state: the two cotangents add
        ct_s = jnp.concatenate([ct_h, ct_h, ct_h], -1) * slopes
        return ct_h * z + ct_s @ u_t, ct_h  # h_{t-1} reached h_t directly, through z, and through U: back, U.T

    def steps(carry, start, length):
        ct_h, ct_p, ct_x = carry
        x_window = window(x, start, length)
        h_before = before(y, first, start, window(y, start, length))
        r, z, n, v = kept_at(kept, start, length)
        # Given r, z, n and v every map from ct_h to the gates is diagonal: these are the diagonals.
        slope_n = (1 - z) * ((1 - n) * (1 + n))
        slope_r, slope_z = slope_n * v * (r * (1 - r)), (h_before - n) * (z * (1 - z))
        slopes = jnp.concatenate([slope_r, slope_z, slope_n * r], -1)
        ct_h, ct_each = lax.scan(step, ct_h, (window(ct_y, start, length), slopes, z), reverse=True)
        ct_n = ct_each * slope_n
        ct_a = jnp.concatenate([ct_each * slope_r, ct_each * slope_z, ct_n], -1)
        ct_s = jnp.concatenate([ct_a[..., : -n.shape[-1]], ct_n * r], -1)  # those of s equal those of a, except for r before n
        ct_w, ct_b = weights_t(x_window, ct_a, ct_p.w.dtype)
        ct_u, ct_b_s = weights_t(h_before, ct_s, ct_p.u.dtype)
        ct_b_u = ct_b_s[-n.shape[-1] :]
        ct_p = ct_p._replace(w=ct_p.w + ct_w, u=ct_p.u + ct_u, b=ct_p.b + ct_b, b_u=ct_p.b_u + ct_b_u)
        return ct_h, ct_p, window_t(ct_x, affine(ct_a, w_t), start)

    start = (ct_h, accumulators(params), jnp.zeros_like(x))
    ct_h, ct_p, ct_x = over_windows(steps, start, *x.shape[:2], reverse=True)
    return accumulated(ct_p, params), ct_x, ct_h


def lstm_fwd(params: Any, x: Array, state: Any, padding: Any = None, *, gates: Any, still: Any) -> Any:
    def step(state, a_t):
        h, c = state
        i, f, g, o = gates(a_t + h @ params.u)
        c_before, c = c, f * c + i * g
        h = o * jnp.tanh(c)
        return state._replace(h=h, c=c), (h, (c_before, i, f, g, o))

    def stilled(a, start, length):
        return still(a, lax.dynamic_slice_in_dim(padding, start, length, 1).T)

    change = None if padding is None else stilled
    return _forward(step, params, x, state, state.h.shape[-1], 5, change)  # c_{t-1}, i, f, g, o


def lstm_bwd(residuals: Any, cts: Any) -> Any:
    params, x, first, y, kept = residuals
    ct_y, ct_state = cts
    w_t, u_t = params.w.T, params.u.T

    def step(ct_state, known):
        ct_h, ct_c = ct_state
        ct_y_t, slopes, slope_c, f = known
        ct_h = ct_y_t + ct_h  # h_t was used twice, as output and as state: the two cotangents add
        ct_c = ct_c + ct_h * slope_c
        ct_a = jnp.concatenate([ct_c, ct_c, ct_c, ct_h], -1) * slopes
        return ct_state._replace(h=ct_a @ u_t, c=ct_c * f), ct_a  # forward, h_{t-1} U; back, ct_a U.T

    def steps(carry, start, length):
        ct_state, ct_p, ct_x = carry
        x_window = window(x, start, length)
        h_before = before(y, first.h, start, window(y, start, length))
        c_before, i, f, g, o = kept_at(kept, start, length)
        # Given the gates and cells every map from (ct_h, ct_c) to ct_a is diagonal: these are the diagonals.
        t = jnp.tanh(f * c_before + i * g)
        slopes = [g * (i * (1 - i)), c_before * (f * (1 - f)), i * ((1 - g) * (1 + g)), t * (o * (1 - o))]
        known = (window(ct_y, start, length), jnp.concatenate(slopes, -1), o * ((1 - t) * (1 + t)), f)
        ct_state, ct_a = lax.scan(step, ct_state, known, reverse=True)
        ct_w, ct_b = weights_t(x_window, ct_a, ct_p.w.dtype)
        ct_u, _ = weights_t(h_before, ct_a, ct_p.u.dtype)
        ct_p = ct_p._replace(w=ct_p.w + ct_w, u=ct_p.u + ct_u, b=ct_p.b + ct_b)
        return ct_state, ct_p, window_t(ct_x, affine(ct_a, w_t), start)

    start = (ct_state, accumulators(params), jnp.zeros_like(x))
    ct_state, ct_p, ct_x = over_windows(steps, start, *x.shape[:2], reverse=True)
    return accumulated(ct_p, params), ct_x, ct_state
