"""The gated recurrent unit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..errors import expect_positive
from ..fast.cpu.windows import (
    accumulated,
    accumulators,
    affine,
    affine_t,
    before,
    keep,
    kept_at,
    over_windows,
    window,
    window_t,
)
from ..layer import Layer
from ..linear import broadcast
from .recurrent import gate_weights, recurrent


class GRUParams(NamedTuple):
    """w: (n_in, 3 n_hidden), u: (n_hidden, 3 n_hidden), b: (3 n_hidden,), b_u: (n_hidden,); gates in the order r, z, n."""

    w: Array
    u: Array
    b: Array
    b_u: Array

    WEIGHTS = ("w", "u")


def _gates(a, s, b_u):
    """(r, z, n, v): reset, update, candidate, and v = the candidate's share of the state, h_{t-1} U_n + b_u."""
    a_r, a_z, a_n = jnp.split(a, 3, -1)
    s_r, s_z, s_n = jnp.split(s, 3, -1)
    r, z = jax.nn.sigmoid(a_r + s_r), jax.nn.sigmoid(a_z + s_z)
    v = s_n + broadcast(b_u, s_n.shape)
    return r, z, jnp.tanh(a_n + r * v), v


def gru_apply(params, x, h):
    """h_t = (1 - z) n + z h_{t-1}, y_t = h_t, where with a = x_t W + b and s = h_{t-1} U

    r = sigmoid(a_r + s_r), z = sigmoid(a_z + s_z), n = tanh(a_n + r (s_n + b_u)).
    """

    def step(h, x_t):
        _, z, n, _ = _gates(affine(x_t, params.w, params.b), h @ params.u, params.b_u)
        h = (1 - z) * n + z * h
        return h, h

    h, y = lax.scan(step, h, jnp.swapaxes(x, 0, 1))
    return jnp.swapaxes(y, 0, 1), h


def gru_fwd(params, x, h):
    def step(h, a_t):
        gates = _gates(a_t, h @ params.u, params.b_u)
        _, z, n, _ = gates
        h = (1 - z) * n + z * h
        return h, (h, gates)

    def steps(carry, start, length):
        h, y, kept = carry
        h, (h_window, gates) = lax.scan(step, h, affine(window(x, start, length), params.w, params.b))
        return h, window_t(y, h_window, start), keep(kept, gates, start)

    batch, time, _ = x.shape
    n = h.shape[-1]
    kept = (jnp.zeros_like(x, shape=(time, batch, n)),) * 4  # r, z, n, v
    last, y, kept = over_windows(steps, (h, jnp.zeros_like(x, shape=(batch, time, n)), kept), batch, time)
    return (y, last), (params, x, h, y, kept)


def gru_bwd(residuals, cts):
    params, x, first, y, kept = residuals
    ct_y, ct_h = cts
    w_t, u_t = params.w.T, params.u.T

    def step(ct_h, known):
        ct_y_t, slopes, z = known
        ct_h = ct_y_t + ct_h  # h_t was used twice, as output and as state: the two cotangents add
        ct_s = jnp.concatenate([ct_h, ct_h, ct_h], -1) * slopes
        return ct_h * z + ct_s @ u_t, ct_h  # h_{t-1} reached h_t past the gates, through z, and through U: back, U.T

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
        ct_s = jnp.concatenate([ct_a[..., : -n.shape[-1]], ct_n * r], -1)  # to s they are those to a, but for r before n
        ct_w, ct_b = affine_t(x_window, ct_a, ct_p.w.dtype)
        ct_u, ct_b_s = affine_t(h_before, ct_s, ct_p.u.dtype)
        ct_p = GRUParams(ct_p.w + ct_w, ct_p.u + ct_u, ct_p.b + ct_b, ct_p.b_u + ct_b_s[-n.shape[-1] :])
        return ct_h, ct_p, window_t(ct_x, affine(ct_a, w_t), start)

    start = (ct_h, accumulators(params), jnp.zeros_like(x))
    ct_h, ct_p, ct_x = over_windows(steps, start, *x.shape[:2], reverse=True)
    return accumulated(ct_p, params), ct_x, ct_h


def gru(n_in: int, n_hidden: int, *, carry: bool = False) -> Layer:
    """h_t = (1 - z) n + z h_{t-1}, y_t = h_t, with reset gate r inside n, update gate z, candidate n (see `gru_apply`).

    Cho et al. 2014, eq. 5 to 8, with r applied after U, as in cuDNN; there z and 1 - z are exchanged.
    x: (..., time, n_in), y: (..., time, n_hidden), from the zero state. With `carry` x is (x, h) and y is (y, h), with
    h: (..., n_hidden) the state before the first step and after the last; h=None is the zero state.
    Each gate's W starts as in Glorot and Bengio 2010 (eq. 16), its U orthogonal, the biases at zero.
    Raises TypeError and ValueError for params, x or state of another kind, shape or dtype.
    """
    n_in, n_hidden = expect_positive("gru", n_in=n_in, n_hidden=n_hidden)
    shapes = {"w": (n_in, 3 * n_hidden), "u": (n_hidden, 3 * n_hidden), "b": (3 * n_hidden,), "b_u": (n_hidden,)}

    def init(key):
        w, u = gate_weights(key, n_in, n_hidden, 3)
        return GRUParams(w, u, jnp.zeros(shapes["b"], jnp.float32), jnp.zeros(shapes["b_u"], jnp.float32))

    return recurrent("gru", n_in, n_hidden, carry, GRUParams, shapes, None, init, gru_apply, gru_fwd, gru_bwd)
