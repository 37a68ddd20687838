"""Long short-term memory."""

from functools import partial
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..errors import expect_positive
from ..fast.cpu import recurrent as cpu
from ..layer import Layer
from ..linear import affine, broadcast, broadcast_t, fold
from .recurring.one_way import fast_pair, one_way
from .recurring.stacked import expect_options, recurrent
from .recurring.steps import gate_weights, one_earlier, over_time, time_first


class LSTMParams(NamedTuple):
    """w: (n_in, 4 n_hidden), u: (n_hidden, 4 n_hidden), b: (4 n_hidden,); gates in the order i, f, g, o. See `lstm`."""

    w: Array
    u: Array
    b: Array

    WEIGHTS = ("w", "u")


class LSTMState(NamedTuple):
    """h, c: (..., n_hidden): the output of the previous step, and its cell. See `lstm`."""

    h: Array
    c: Array


def _gates(a):
    """(i, f, g, o): input, forget, candidate, output."""
    i, f, g, o = jnp.split(a, 4, -1)
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


def _still(a, padding):
    """a, and in the padding what keeps the cell as it is: i = 0 and f = 1."""
    closed = jnp.asarray(np.repeat([-np.inf, np.inf, 0, 0], a.shape[-1] // 4), a.dtype)
    return jnp.where(broadcast(padding[..., None], a.shape), broadcast(closed, a.shape), a)


def lstm_apply(params: Any, x: Array, state: Any, **how: Any) -> Any:
    """c_t = f c_{t-1} + i g, h_t = o tanh(c_t), y_t = h_t, where with a = x_t W + b + h_{t-1} U

    i = sigmoid(a_i), f = sigmoid(a_f), g = tanh(a_g), o = sigmoid(a_o).  how: see `over_time`.
    """

    def step(state, x_t):
        h, c = state
        i, f, g, o = _gates(affine(x_t, params.w, params.b) + h @ params.u)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return LSTMState(h, c), h

    return over_time(step, x, state, **how)


def lstm_fwd(params: Any, x: Array, state: Any, padding: Any = None) -> Any:
    def step(state, a_t):
        h, c_before = state
        i, f, g, o = _gates(a_t + h @ params.u)
        c = f * c_before + i * g
        h = o * jnp.tanh(c)
        return LSTMState(h, c), (h, (c_before, i, f, g, o))

    a = affine(x, params.w, params.b)
    last, (y, kept) = lax.scan(step, state, time_first(a if padding is None else _still(a, padding)))
    y = time_first(y)
    return (y, last), (params, x, state, y, kept)


def lstm_bwd(residuals: Any, cts: Any) -> Any:
    params, x, first, y, (c_before, i, f, g, o) = residuals
    ct_y, ct_last = cts
    # Given the gates and cells every map from (ct_h, ct_c) to ct_a is diagonal: these are the diagonals.
    t = jnp.tanh(f * c_before + i * g)
    slopes = [g * (i * (1 - i)), c_before * (f * (1 - f)), i * ((1 - g) * (1 + g)), t * (o * (1 - o))]

    def step(ct_state, known):
        ct_h, ct_c = ct_state
        ct_y_t, slope, slope_c, f = known
        ct_h = ct_y_t + ct_h  # h_t was used twice, as output and as state: the two cotangents add
        ct_c = ct_c + ct_h * slope_c
        ct_a = jnp.concatenate([ct_c, ct_c, ct_c, ct_h], -1) * slope
        return LSTMState(ct_a @ params.u.T, ct_c * f), ct_a  # forward, h_{t-1} U; back, ct_a U.T

    known = (time_first(ct_y), jnp.concatenate(slopes, -1), o * ((1 - t) * (1 + t)), f)
    ct_first, ct_a = lax.scan(step, ct_last, known, reverse=True)
    ct_a = time_first(ct_a)
    ct_x = ct_a @ params.w.T
    ct_w = fold(x).T @ fold(ct_a)  # W, U and b were used at every step: one product sums over all of them
    ct_u = fold(one_earlier(y, first.h)).T @ fold(ct_a)
    ct_b = broadcast_t(ct_a, params.b.shape)
    return LSTMParams(ct_w, ct_u, ct_b), ct_x, ct_first


@overload
def lstm(
    n_in: int, n_hidden: int, *, carry: Literal[False] = False, bidirectional: bool = False, layers: int = 1,
    dropout: float = 0.0, lengths: bool = False, truncate: int | None = None,
) -> Layer[Array]: ...  # fmt: skip
@overload
def lstm(
    n_in: int, n_hidden: int, *, carry: bool, bidirectional: bool = False, layers: int = 1,
    dropout: float = 0.0, lengths: bool = False, truncate: int | None = None,
) -> Layer: ...  # fmt: skip


def lstm(
    n_in: int, n_hidden: int, *, carry: bool = False, bidirectional: bool = False, layers: int = 1, dropout: float = 0.0,
    lengths: bool = False, truncate: int | None = None,
) -> Layer:  # fmt: skip
    """c_t = f c_{t-1} + i g, h_t = o tanh(c_t), y_t = h_t, with gates i, f, o and candidate g (see `lstm_apply`).

    Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    x: (..., time, n_in), y: (..., time, n_hidden), from the zero state. With `carry` x is (x, state) and y is (y, state),
    with LSTMState(h, c), each (..., n_hidden), before the first step and after the last; state=None is the zero state.
    Each gate's W starts as in Glorot and Bengio 2010 (eq. 16), its U orthogonal, b at zero, except 1 for the forget gate
    (Jozefowicz et al. 2015, section 2.2).

    bidirectional: a second layer runs from the end; y: (..., time, 2 n_hidden), both side by side, params and state are pairs.
    layers: so many above each other, params and state are tuples with an entry for each; dropout: the share of y dropped
    between two of them, with a key alone.
    lengths: x is (x, lengths), or (x, state, lengths), lengths: integers (...). What is in x from there on, be it NaN, has no
    effect: there y is 0, the last state is that of the last real step, and a second layer starts at it.
    truncate: cut the cotangent of the state at every step that is a multiple of it. The result is not the gradient, and
    `truncation_bias` says by how much. The definition has a `stop_gradient` at these steps, so that `jax.grad` of it agrees.
    The transpose of the loop over time is the loop from its end, whose state is the state's cotangent.
    Raises TypeError and ValueError for params, x or state of another kind, shape or dtype.

    >>> layer = nnjax.lstm(3, 5, carry=True)
    >>> y, state = layer.apply(layer.init(jax.random.key(0)), (jnp.ones((2, 7, 3)), None))
    >>> y.shape, state.c.shape
    ((2, 7, 5), (2, 5))
    """
    n_in, n_hidden = expect_positive("lstm", n_in=n_in, n_hidden=n_hidden)
    how, shape = expect_options(
        "lstm", carry=carry, bidirectional=bidirectional, layers=layers, dropout=dropout, lengths=lengths, truncate=truncate
    )
    fast = fast_pair(lstm_fwd, lstm_bwd, partial(cpu.lstm_fwd, gates=_gates, still=_still), cpu.lstm_bwd)

    def cell(n_in, how):
        shapes = {"w": (n_in, 4 * n_hidden), "u": (n_hidden, 4 * n_hidden), "b": (4 * n_hidden,)}

        def init(key):
            w, u = gate_weights(key, n_in, n_hidden, 4)
            b = jnp.zeros((4, n_hidden), jnp.float32).at[1].set(1)
            return LSTMParams(w, u, b.ravel())

        return one_way("lstm", n_in, n_hidden, how, LSTMParams, shapes, LSTMState, init, lstm_apply, lstm_fwd, lstm_bwd, fast)

    return recurrent("lstm", cell, n_in, n_hidden, how, shape)
