"""The tanh recurrent layer.

A recurrent layer is one step, repeated over time. Unrolled, T steps are a composition, and (A_T ... A_1)ᵀ = A_1ᵀ ... A_Tᵀ:
backpropagation through time is this reversal. The backward loop carries only the state's cotangent. Everything else that
a step needs is known before the loop starts, as every state is kept. The weights need only what is known after it: one
matrix product for all steps.
"""

from functools import partial
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..errors import expect_positive, unknown_name
from ..fast.cpu import recurrent as cpu
from ..layer import Layer
from ..linear import affine, broadcast_t, fold
from .recurring.one_way import fast_pair, one_way
from .recurring.stacked import expect_options, recurrent
from .recurring.steps import gate_weights, one_earlier, over_time, time_first


class RNNParams(NamedTuple):
    """w: (n_in, n_hidden), u: (n_hidden, n_hidden), b: (n_hidden,). See `rnn`."""

    w: Array
    u: Array
    b: Array

    WEIGHTS = ("w", "u")


def tanh_slope(y: Array) -> Array:
    """tanh'(a), from y = tanh(a)."""
    return (1 - y) * (1 + y)


def rnn_apply(params: Any, x: Array, h: Array, *, activate: Any = jnp.tanh, **how: Any) -> Any:
    """h_t = tanh(x_t W + b + h_{t-1} U), y_t = h_t.  x: (batch, time, n_in), h: (batch, n_hidden), how: see `over_time`."""

    def step(h, x_t):
        h = activate(affine(x_t, params.w, params.b) + h @ params.u)
        return h, h

    return over_time(step, x, h, **how)


def rnn_fwd(params: Any, x: Array, h: Array, *, activate: Any = jnp.tanh) -> Any:
    def step(h, a_t):
        h = activate(a_t + h @ params.u)
        return h, h

    last, y = lax.scan(step, h, time_first(affine(x, params.w, params.b)))
    y = time_first(y)
    return (y, last), (params, x, h, y, ())


def rnn_bwd(residuals: Any, cts: Any, *, slope: Any = tanh_slope) -> Any:
    params, x, first, y, _ = residuals
    ct_y, ct_h = cts

    def step(ct_h, known):
        ct_y_t, slope_t = known
        ct_a = (ct_y_t + ct_h) * slope_t  # h_t was used twice, as output and as state: the two cotangents add
        return ct_a @ params.u.T, ct_a  # forward, h_{t-1} U; back, ct_a U.T

    ct_first, ct_a = lax.scan(step, ct_h, (time_first(ct_y), time_first(slope(y))), reverse=True)
    ct_a = time_first(ct_a)
    ct_x = ct_a @ params.w.T
    ct_w = fold(x).T @ fold(ct_a)  # W, U and b were used at every step: one product sums over all of them
    ct_u = fold(one_earlier(y, first)).T @ fold(ct_a)
    ct_b = broadcast_t(ct_a, params.b.shape)
    return RNNParams(ct_w, ct_u, ct_b), ct_x, ct_first


ACTIVATIONS = {"tanh": (jnp.tanh, tanh_slope), "relu": (jax.nn.relu, lambda y: (y > 0).astype(y.dtype))}


@overload
def rnn(
    n_in: int, n_hidden: int, *, carry: Literal[False] = False, bidirectional: bool = False, layers: int = 1,
    dropout: float = 0.0, lengths: bool = False, truncate: int | None = None, activation: str = "tanh",
) -> Layer[Array]: ...  # fmt: skip
@overload
def rnn(
    n_in: int, n_hidden: int, *, carry: bool, bidirectional: bool = False, layers: int = 1,
    dropout: float = 0.0, lengths: bool = False, truncate: int | None = None, activation: str = "tanh",
) -> Layer: ...  # fmt: skip


def rnn(
    n_in: int, n_hidden: int, *, carry: bool = False, bidirectional: bool = False, layers: int = 1, dropout: float = 0.0,
    lengths: bool = False, truncate: int | None = None, activation: str = "tanh",
) -> Layer:  # fmt: skip
    """h_t = tanh(x_t W + b + h_{t-1} U), y_t = h_t.  Elman 1990.

    x: (..., time, n_in), y: (..., time, n_hidden), from the zero state. With `carry` x is (x, h) and y is (y, h), with
    h: (..., n_hidden) the state before the first step and after the last; h=None is the zero state.
    W starts as in Glorot and Bengio 2010 (eq. 16), U orthogonal, b at zero. activation: "tanh" or "relu", with relu'(0) = 0.
    The other options are those of `lstm`.
    Raises TypeError and ValueError for params, x or state of another kind, shape or dtype.

    >>> layer = nnjax.rnn(3, 5)
    >>> layer.apply(layer.init(jax.random.key(0)), jnp.ones((2, 7, 3))).shape
    (2, 7, 5)
    """
    n_in, n_hidden = expect_positive("rnn", n_in=n_in, n_hidden=n_hidden)
    how, shape = expect_options(
        "rnn", carry=carry, bidirectional=bidirectional, layers=layers, dropout=dropout, lengths=lengths, truncate=truncate
    )
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise unknown_name("activation of rnn", activation, ACTIVATIONS)
    activate, slope = ACTIVATIONS[activation]
    apply, fwd, bwd = partial(rnn_apply, activate=activate), partial(rnn_fwd, activate=activate), partial(rnn_bwd, slope=slope)
    fast = fast_pair(fwd, bwd, partial(cpu.rnn_fwd, activate=activate), partial(cpu.rnn_bwd, slope=slope))

    def cell(n_in, how):
        shapes = {"w": (n_in, n_hidden), "u": (n_hidden, n_hidden), "b": (n_hidden,)}

        def init(key):
            w, u = gate_weights(key, n_in, n_hidden, 1)
            return RNNParams(w, u, jnp.zeros(shapes["b"], jnp.float32))

        return one_way("rnn", n_in, n_hidden, how, RNNParams, shapes, None, init, apply, fwd, bwd, fast)

    return recurrent("rnn", cell, n_in, n_hidden, how, shape)
