"""Recurrences inside anyone's `jax.grad`."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from .. import layers
from ..errors import describe, expect_flag, expect_float, expect_shape, whole_number
from ..layer import as_custom_vjp
from ..layers.recurring.one_way import expect_lengths
from ..trees.varying import together
from .remembered import remembered

_called = remembered(lambda make, *args, **how: as_custom_vjp(make(*args, **how)))


def linear_recurrence(a: Array, b: Array, h0: Array | None = None, *, axis: int = -2, reverse: bool = False) -> Array:
    """h_t = a_t h_{t-1} + b_t along an axis, for each entry: `nnjax.linear_recurrence` with the arrays given one by one.

    a, b and the result: of one shape; h0: that shape without the axis, the state before the first step, left out 0.
    reverse: h_t = a_t h_{t+1} + b_t, and h0 is the state after the last step.
    Backward: the same recurrence from the other end.  Raises as `nnjax.linear_recurrence` does.

    >>> a, b = jnp.array([0.5, 0.0, 2.0]), jnp.ones(3)
    >>> nnjax.ops.linear_recurrence(a, b, axis=0).tolist()
    [1.0, 1.0, 3.0]
    >>> jax.grad(lambda b: nnjax.ops.linear_recurrence(a, b, axis=0)[-1])(b).tolist()
    [0.0, 2.0, 1.0]
    """
    who = "ops.linear_recurrence"
    expect_float(who, "a", a)
    expect_shape(who, "b", b, a.shape)
    expect_flag(who, reverse=reverse)
    number = whole_number(axis)
    if number is None or not -a.ndim <= number < a.ndim:
        raise ValueError(f"{who}: axis must be one of the {a.ndim} of a, from {-a.ndim} to {a.ndim - 1}, got {axis!r}.")
    if h0 is not None:
        expect_shape(who, "h0", h0, tuple(n for i, n in enumerate(a.shape) if i != number % a.ndim))
    if a.ndim == 1:
        given = a[:, None], b[:, None], *(() if h0 is None else (h0[None],))
        return _recurrence(given, reverse)[:, 0]
    given = jnp.moveaxis(a, number, -2), jnp.moveaxis(b, number, -2), *(() if h0 is None else (h0,))
    return jnp.moveaxis(_recurrence(given, reverse), -2, number)


def _recurrence(given: Any, reverse: bool) -> Array:
    return _called(layers.linear_recurrence, reverse=bool(reverse))((), together(given))


def _any(b: Any) -> Any:
    return b  # a bias, or None: `_run` fills it in


def _run(make: Any, params: Any, gates: int, x: Array, state: Any, lengths: Any, **how: Any) -> Any:
    """(y, last state) of the layer of these parameters; a b that is None is 0."""
    who, w = f"ops.{make.__name__}", params.w
    expect_float(who, "w", w)
    if w.ndim != 2 or not w.size or w.shape[1] % gates:
        raise ValueError(f"{who}: w must have shape (n_in, {gates} n_hidden), got {describe(w)}; gates stand side by side.")
    expect_float(who, "x", x)
    n_in, n_hidden = w.shape[0], w.shape[1] // gates
    if lengths is not None and x.ndim >= 2:
        expect_lengths(who, lengths, x.shape[:-2], x.shape[-2])  # inside a custom_vjp their numbers are not known
    sizes = {"b": gates * n_hidden, "b_u": n_hidden}
    left_out = {name: n for name, n in sizes.items() if getattr(params, name, w) is None}
    params = params._replace(**{name: jnp.zeros_like(w, shape=(n,)) for name, n in left_out.items()})
    f = _called(make, n_in, n_hidden, carry=True, lengths=lengths is not None, **how)
    return f(*together((params, (x, state) if lengths is None else (x, state, lengths))))


def rnn(
    x: Array, state: Array | None, w: Array, u: Array, b: Array | None = None, *, lengths: Array | None = None,
    truncate: int | None = None, activation: str = "tanh",
) -> tuple[Array, Array]:  # fmt: skip
    """(y, last h) of h_t = tanh(x_t W + b + h_{t-1} U), y_t = h_t: `nnjax.rnn` with the parameters given.

    x: (..., time, n_in), state: h, (..., n_hidden), None for 0; w: (n_in, n_hidden), u: (n_hidden, n_hidden), b: (n_hidden,),
    left out 0. The options are those of `nnjax.rnn`.  Raises as it does.

    >>> y, h = nnjax.ops.rnn(jnp.ones((2, 7, 3)), None, jnp.ones((3, 5)), jnp.eye(5))
    >>> y.shape, h.shape
    ((2, 7, 5), (2, 5))
    """
    return _run(layers.rnn, layers.RNNParams(w, u, _any(b)), 1, x, state, lengths, truncate=truncate, activation=activation)


def gru(
    x: Array, state: Array | None, w: Array, u: Array, b: Array | None = None, b_u: Array | None = None, *,
    lengths: Array | None = None, truncate: int | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """(y, last h) of h_t = (1 - z) n + z h_{t-1}, y_t = h_t: `nnjax.gru` with the parameters given.

    x: (..., time, n_in), state: h, (..., n_hidden), None for 0; w: (n_in, 3 n_hidden), u: (n_hidden, 3 n_hidden),
    b: (3 n_hidden,), b_u: (n_hidden,), left out 0; gates in the order r, z, n. The options are those of `nnjax.gru`.
    Raises as it does.

    >>> y, h = nnjax.ops.gru(jnp.ones((2, 7, 3)), None, jnp.ones((3, 15)), jnp.ones((5, 15)))
    >>> y.shape, h.shape
    ((2, 7, 5), (2, 5))
    """
    return _run(layers.gru, layers.GRUParams(w, u, _any(b), _any(b_u)), 3, x, state, lengths, truncate=truncate)


def lstm(
    x: Array, state: Any, w: Array, u: Array, b: Array | None = None, *, lengths: Array | None = None,
    truncate: int | None = None,
) -> tuple[Array, layers.LSTMState]:  # fmt: skip
    """(y, last state) of c_t = f c_{t-1} + i g, h_t = o tanh(c_t), y_t = h_t: `nnjax.lstm` with the parameters given.

    x: (..., time, n_in), state: LSTMState(h, c) or a pair, each (..., n_hidden), None for 0; w: (n_in, 4 n_hidden),
    u: (n_hidden, 4 n_hidden), b: (4 n_hidden,), left out 0; gates in the order i, f, g, o. The options are those of
    `nnjax.lstm`.  Raises as it does.

    >>> y, (h, c) = nnjax.ops.lstm(jnp.ones((2, 7, 3)), None, jnp.ones((3, 20)), jnp.ones((5, 20)))
    >>> y.shape, c.shape
    ((2, 7, 5), (2, 5))
    """
    if type(state) is tuple and len(state) == 2:
        state = layers.LSTMState(*state)
    return _run(layers.lstm, layers.LSTMParams(w, u, _any(b)), 4, x, state, lengths, truncate=truncate)


def rg_lru(
    x: Array, state: Array | None, w: Array, b: Array | None, decay: Array, *, lengths: Array | None = None
) -> tuple[Array, Array]:
    """(y, last h) of h_t = a h_{t-1} + sqrt(1 - a²) i u, y_t = h_t: `nnjax.rg_lru` with the parameters given.

    x: (..., time, n_in), state: h, (..., n_hidden), None for 0; w: (n_in, 3 n_hidden), b: (3 n_hidden,), None for 0, in the
    order u, r, i; decay: (n_hidden,).  Raises as `nnjax.rg_lru` does.

    >>> y, h = nnjax.ops.rg_lru(jnp.ones((2, 7, 3)), None, jnp.ones((3, 15)), None, jnp.zeros(5))
    >>> y.shape, h.shape
    ((2, 7, 5), (2, 5))
    """
    return _run(layers.rg_lru, layers.RGLRUParams(w, _any(b), decay), 3, x, state, lengths)
