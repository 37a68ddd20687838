"""The gated recurrent unit."""

from functools import partial
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..errors import expect_positive
from ..fast.cpu import recurrent as cpu
from ..layer import Layer
from ..linear import affine, broadcast, broadcast_t, fold
from .recurring.one_way import fast_pair, one_way
from .recurring.stacked import expect_options, recurrent
from .recurring.steps import gate_weights, one_earlier, over_time, time_first


class GRUParams(NamedTuple):
    """w: (n_in, 3 n_hidden), u: (n_hidden, 3 n_hidden), b: (3 n_hidden,), b_u: (n_hidden,); gates in the order r, z, n.

    See `gru`.
    """

    w: Array
    u: Array
    b: Array
    b_u: Array

    WEIGHTS = ("w", "u")


def _gates(a, s, b_u):
    """(r, z, n, v): reset, update, candidate, and v = the part of the candidate from the state, h_{t-1} U_n + b_u."""
    a_r, a_z, a_n = jnp.split(a, 3, -1)
    s_r, s_z, s_n = jnp.split(s, 3, -1)
    r, z = jax.nn.sigmoid(a_r + s_r), jax.nn.sigmoid(a_z + s_z)
    v = s_n + broadcast(b_u, s_n.shape)
    return r, z, jnp.tanh(a_n + r * v), v


def gru_apply(params: Any, x: Array, h: Array, **how: Any) -> Any:
    """h_t = (1 - z) n + z h_{t-1}, y_t = h_t, where with a = x_t W + b and s = h_{t-1} U

    r = sigmoid(a_r + s_r), z = sigmoid(a_z + s_z), n = tanh(a_n + r (s_n + b_u)).  how: see `over_time`.
    """

    def step(h, x_t):
        _, z, n, _ = _gates(affine(x_t, params.w, params.b), h @ params.u, params.b_u)
        h = (1 - z) * n + z * h
        return h, h

    return over_time(step, x, h, **how)


def gru_fwd(params: Any, x: Array, h: Array) -> Any:
    def step(h, a_t):
        r, z, n, v = _gates(a_t, h @ params.u, params.b_u)
        h = (1 - z) * n + z * h
        return h, (h, (r, z, n, v))

    last, (y, kept) = lax.scan(step, h, time_first(affine(x, params.w, params.b)))
    y = time_first(y)
    return (y, last), (params, x, h, y, kept)


def gru_bwd(residuals: Any, cts: Any) -> Any:
    params, x, first, y, (r, z, n, v) = residuals
    ct_y, ct_h = cts
    h_before = one_earlier(y, first)
    # Given r, z, n and v every map from ct_h to the gates is diagonal: these are the diagonals.
    slope_n = (1 - z) * ((1 - n) * (1 + n))
    slope_r, slope_z = slope_n * v * (r * (1 - r)), (time_first(h_before) - n) * (z * (1 - z))
    slope_s = jnp.concatenate([slope_r, slope_z, slope_n * r], -1)

    def step(ct_h, known):
        ct_y_t, slope, z = known
        ct_h = ct_y_t + ct_h  # h_t was used twice, as output and as state: the two cotangents add
        ct_s = jnp.concatenate([ct_h, ct_h, ct_h], -1) * slope
        return ct_h * z + ct_s @ params.u.T, ct_h  # h_{t-1} reached h_t directly, through z, and through U: back, U.T

    ct_first, ct_h = lax.scan(step, ct_h, (time_first(ct_y), slope_s, z), reverse=True)
    ct_s = time_first(jnp.concatenate([ct_h, ct_h, ct_h], -1) * slope_s)
    ct_a = time_first(jnp.concatenate([ct_h, ct_h, ct_h], -1) * jnp.concatenate([slope_r, slope_z, slope_n], -1))
    ct_x = ct_a @ params.w.T
    ct_w = fold(x).T @ fold(ct_a)  # W, U and b were used at every step: one product sums over all of them
    ct_u = fold(h_before).T @ fold(ct_s)
    ct_b = broadcast_t(ct_a, params.b.shape)
    ct_b_u = broadcast_t(ct_s[..., -n.shape[-1] :], params.b_u.shape)
    return GRUParams(ct_w, ct_u, ct_b, ct_b_u), ct_x, ct_first


@overload
def gru(
    n_in: int, n_hidden: int, *, carry: Literal[False] = False, bidirectional: bool = False, layers: int = 1,
    dropout: float = 0.0, lengths: bool = False, truncate: int | None = None,
) -> Layer[Array]: ...  # fmt: skip
@overload
def gru(
    n_in: int, n_hidden: int, *, carry: bool, bidirectional: bool = False, layers: int = 1,
    dropout: float = 0.0, lengths: bool = False, truncate: int | None = None,
) -> Layer: ...  # fmt: skip


def gru(
    n_in: int, n_hidden: int, *, carry: bool = False, bidirectional: bool = False, layers: int = 1, dropout: float = 0.0,
    lengths: bool = False, truncate: int | None = None,
) -> Layer:  # fmt: skip
    """h_t = (1 - z) n + z h_{t-1}, y_t = h_t, with reset gate r inside n, update gate z, candidate n (see `gru_apply`).

    Cho et al. 2014, eq. 5 to 8, with r applied after U, as in cuDNN; there z and 1 - z are exchanged.
    x: (..., time, n_in), y: (..., time, n_hidden), from the zero state. With `carry` x is (x, h) and y is (y, h), with
    h: (..., n_hidden) the state before the first step and after the last; h=None is the zero state.
    Each gate's W starts as in Glorot and Bengio 2010 (eq. 16), its U orthogonal, the biases at zero.
    The other options are those of `lstm`.
    Raises TypeError and ValueError for params, x or state of another kind, shape or dtype.

    >>> layer = nnjax.gru(3, 5)
    >>> layer.apply(layer.init(jax.random.key(0)), jnp.ones((2, 7, 3))).shape
    (2, 7, 5)
    """
    n_in, n_hidden = expect_positive("gru", n_in=n_in, n_hidden=n_hidden)
    how, shape = expect_options(
        "gru", carry=carry, bidirectional=bidirectional, layers=layers, dropout=dropout, lengths=lengths, truncate=truncate
    )
    fast = fast_pair(gru_fwd, gru_bwd, partial(cpu.gru_fwd, gates=_gates), cpu.gru_bwd)

    def cell(n_in, how):
        shapes = {"w": (n_in, 3 * n_hidden), "u": (n_hidden, 3 * n_hidden), "b": (3 * n_hidden,), "b_u": (n_hidden,)}

        def init(key):
            w, u = gate_weights(key, n_in, n_hidden, 3)
            return GRUParams(w, u, jnp.zeros(shapes["b"], jnp.float32), jnp.zeros(shapes["b_u"], jnp.float32))

        return one_way("gru", n_in, n_hidden, how, GRUParams, shapes, None, init, gru_apply, gru_fwd, gru_bwd, fast)

    return recurrent("gru", cell, n_in, n_hidden, how, shape)
