"""The tanh recurrent layer, and what rnn, gru and lstm share.

A recurrent layer is one step, repeated over time. Unrolled, T steps are a composition, and (A_T ... A_1)ᵀ = A_1ᵀ ... A_Tᵀ:
backpropagation through time is this reversal. The backward loop carries only the state's cotangent. Everything else that
a step needs is known before the loop starts, as every state is kept. The weights need only what is known after it: one
matrix product for all steps.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..errors import describe, expect_flag, expect_float, expect_params, expect_positive, expect_same_dtype, expect_shape
from ..fast.choose import by_platform
from ..fast.cpu import recurrent as cpu
from ..layer import Layer
from ..leaf import Like, expect_cotangent, leaf, outline, outlined
from ..linear import affine, broadcast_t, fold


class RNNParams(NamedTuple):
    """w: (n_in, n_hidden), u: (n_hidden, n_hidden), b: (n_hidden,)."""

    w: Array
    u: Array
    b: Array

    WEIGHTS = ("w", "u")


def rnn_apply(params: Any, x: Array, h: Array) -> Any:
    """h_t = tanh(x_t W + b + h_{t-1} U), y_t = h_t.  x: (batch, time, n_in), h: (batch, n_hidden)."""

    def step(h, x_t):
        h = jnp.tanh(affine(x_t, params.w, params.b) + h @ params.u)
        return h, h

    h, y = lax.scan(step, h, jnp.swapaxes(x, 0, 1))
    return jnp.swapaxes(y, 0, 1), h


def rnn_fwd(params: Any, x: Array, h: Array) -> Any:
    def step(h, a_t):
        h = jnp.tanh(a_t + h @ params.u)
        return h, h

    last, y = lax.scan(step, h, time_first(affine(x, params.w, params.b)))
    y = time_first(y)
    return (y, last), (params, x, h, y, ())


def rnn_bwd(residuals: Any, cts: Any) -> Any:
    params, x, first, y, _ = residuals
    ct_y, ct_h = cts

    def step(ct_h, known):
        ct_y_t, slope = known
        ct_a = (ct_y_t + ct_h) * slope  # h_t was used twice, as output and as state: the two cotangents add
        return ct_a @ params.u.T, ct_a  # forward, h_{t-1} U; back, ct_a U.T

    ct_first, ct_a = lax.scan(step, ct_h, (time_first(ct_y), time_first((1 - y) * (1 + y))), reverse=True)
    ct_a = time_first(ct_a)
    ct_x = ct_a @ params.w.T
    ct_w = fold(x).T @ fold(ct_a)  # W, U and b were used at every step: one product sums over all of them
    ct_u = fold(one_earlier(y, first)).T @ fold(ct_a)
    ct_b = broadcast_t(ct_a, params.b.shape)
    return RNNParams(ct_w, ct_u, ct_b), ct_x, ct_first


def time_first(x: Array) -> Array:
    """(batch, time, n) -> (time, batch, n), or back: it is its own transpose."""
    return jnp.swapaxes(x, 0, 1)


def one_earlier(y: Array, first: Any) -> Array:
    """first, y_1 ... y_{T-1}: the state at the start of each step.  y: (batch, time, n), first: (batch, n)."""
    return jnp.concatenate([first[:, None], y], 1)[:, : y.shape[1]]


@overload
def rnn(n_in: int, n_hidden: int, *, carry: Literal[False] = False) -> Layer[Array]: ...
@overload
def rnn(n_in: int, n_hidden: int, *, carry: bool) -> Layer: ...


def rnn(n_in: int, n_hidden: int, *, carry: bool = False) -> Layer:
    """h_t = tanh(x_t W + b + h_{t-1} U), y_t = h_t.  Elman 1990.

    x: (..., time, n_in), y: (..., time, n_hidden), from the zero state. With `carry` x is (x, h) and y is (y, h), with
    h: (..., n_hidden) the state before the first step and after the last; h=None is the zero state.
    W starts as in Glorot and Bengio 2010 (eq. 16), U orthogonal, b at zero.
    Raises TypeError and ValueError for params, x or state of another kind, shape or dtype.
    """
    n_in, n_hidden = expect_positive("rnn", n_in=n_in, n_hidden=n_hidden)
    shapes = {"w": (n_in, n_hidden), "u": (n_hidden, n_hidden), "b": (n_hidden,)}

    def init(key):
        w, u = gate_weights(key, n_in, n_hidden, 1)
        return RNNParams(w, u, jnp.zeros(shapes["b"], jnp.float32))

    fast = fast_pair(rnn_fwd, rnn_bwd, cpu.rnn_fwd, cpu.rnn_bwd)
    return recurrent("rnn", n_in, n_hidden, carry, RNNParams, shapes, None, init, rnn_apply, rnn_fwd, rnn_bwd, fast)


def fast_pair(
    fwd: Callable[..., Any], bwd: Callable[..., Any], cpu_fwd: Callable[..., Any], cpu_bwd: Callable[..., Any]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(fwd, bwd), spelled for the platform, for residuals (params, x, state, y, kept).

    cpu_fwd(params, x, state) -> (y, last, kept), the new arrays in the result of fwd.
    """

    def new(params, x, state):
        (y, last), (*_, kept) = fwd(params, x, state)
        return y, last, kept

    def fast_fwd(params, x, state):
        y, last, kept = by_platform(params, x, state, plain=new, cpu=cpu_fwd)
        return (y, last), (params, x, state, y, kept)

    return fast_fwd, lambda residuals, cts: by_platform(residuals, cts, plain=bwd, cpu=cpu_bwd)


def gate_weights(key: Any, n_in: int, n_hidden: int, gates: int) -> tuple[Array, Array]:
    """W: (n_in, gates n_hidden), Glorot's for each gate, and U: (n_hidden, gates n_hidden), orthogonal for each."""
    w_init, u_init = jax.nn.initializers.glorot_uniform(), jax.nn.initializers.orthogonal()
    keys = jax.random.split(key, (2, gates))
    w = [w_init(k, (n_in, n_hidden), jnp.float32) for k in keys[0]]
    u = [u_init(k, (n_hidden, n_hidden), jnp.float32) for k in keys[1]]
    return jnp.concatenate(w, 1), jnp.concatenate(u, 1)


def recurrent(
    name: str, n_in: int, n_hidden: int, carry: bool, kind: type, shapes: dict[str, tuple[int, ...]], state_type: Any,
    init: Callable[..., Any], apply: Callable[..., Any], fwd: Callable[..., Any], bwd: Callable[..., Any],
    fast: tuple[Callable[..., Any], Callable[..., Any]],
) -> Layer:  # fmt: skip
    """The Layer of apply(params, x, state) -> (y, state), its fwd -> ((y, state), residuals), and its
    bwd(residuals, (ct_y, ct_state)) -> (ct_params, ct_x, ct_state), all three on one batch axis.

    kind: the NamedTuple of the parameters; shapes: of the parameters, by name; state_type: the NamedTuple of a state of
    several arrays, or None.
    """
    expect_flag(name.partition("(")[0], carry=carry)
    parts = state_type._fields if state_type else ("state",)

    def entered(params, x):
        """(params, x with one batch axis, the state likewise, the leading axes), after all checks."""
        expect_params(name, params, kind)
        for field, p in params._asdict().items():
            expect_float(name, field, p)
            expect_shape(name, field, p, shapes[field])
            expect_same_dtype(name, field, p, "w", params.w)
        state = None
        if carry:
            if not isinstance(x, tuple) or len(x) != 2:
                raise TypeError(f"{name}: with carry=True x must be the tuple (x, state), got {describe(x)}; pass (x, None) "
                                "to start from zero.")  # fmt: skip
            x, state = x
        expect_float(name, "x", x)
        if x.ndim < 2 or x.shape[-1] != n_in:
            raise ValueError(f"{name}: x must have shape (..., time, {n_in}), got {describe(x)}; "
                             "time is the last axis but one.")  # fmt: skip
        expect_same_dtype(name, "x", x, "w", params.w)
        lead = x.shape[:-2]
        if state is not None:
            if state_type and not isinstance(state, state_type):
                raise TypeError(f"{name}: state must be {state_type.__name__}({', '.join(parts)}), got {describe(state)}; "
                                "pass None to start from zero.")  # fmt: skip
            for part, s in zip(parts, state if state_type else (state,)):
                expect_float(name, part, s)
                expect_shape(name, part, s, (*lead, n_hidden))
                expect_same_dtype(name, part, s, "x", x)
        x = x.reshape(math.prod(lead), *x.shape[-2:])
        zero = jnp.zeros_like(x, shape=(x.shape[0], n_hidden))  # derived from x, so that it is sharded with x
        if state is None:
            return params, x, (state_type(*(zero for _ in parts)) if state_type else zero), lead
        return params, x, jax.tree.map(lambda s: s.reshape(zero.shape), state), lead

    def left(y, state, lead):
        y = y.reshape(*lead, *y.shape[1:])
        return (y, jax.tree.map(lambda s: s.reshape(*lead, n_hidden), state)) if carry else y

    def layer_apply(params, x, *, key=None):
        params, x, state, lead = entered(params, x)
        y, last = apply(params, x, state)
        return left(y, last, lead)

    def layer_fwd(params, x, *, key=None, fwd=fwd):
        given = carry and isinstance(x, tuple) and len(x) == 2 and x[1] is not None
        params, x, state, lead = entered(params, x)
        (y, last), residuals = fwd(params, x, state)
        y = left(y, last, lead)
        return y, (residuals, () if given else None, outline(y[0] if carry else y))

    def output(residuals):
        y = outlined(residuals[2])
        return (y, None) if carry else y

    def layer_bwd(residuals, ct, *, bwd=bwd):
        residuals, given, y = residuals
        ct_y, ct_state = ct if carry else (ct, None)
        lead = ct_y.shape[:-2]
        if ct_state is not None:
            state = Like((*lead, n_hidden), y.dtype)
            expect_cotangent(
                name, "the state's cotangent", ct_state, state_type(*(state for _ in parts)) if state_type else state
            )
        ct_y = ct_y.reshape(math.prod(lead), *ct_y.shape[-2:])
        zero = jnp.zeros_like(ct_y, shape=(ct_y.shape[0], n_hidden))
        if ct_state is None:  # the last state was not used
            ct_state = state_type(*(zero for _ in parts)) if state_type else zero
        ct_state = jax.tree.map(lambda s: s.reshape(zero.shape), ct_state)
        ct_params, ct_x, ct_state = bwd(residuals, (ct_y, ct_state))
        ct_x = ct_x.reshape(*lead, *ct_x.shape[1:])
        if not carry:
            return ct_params, ct_x
        return ct_params, (ct_x, jax.tree.map(lambda s: s.reshape(*lead, n_hidden), ct_state) if given is not None else None)

    fast_layer = partial(layer_fwd, fwd=fast[0]), partial(layer_bwd, bwd=fast[1])
    return leaf(f"{name}({n_in}, {n_hidden})", init, layer_apply, layer_fwd, layer_bwd, output, fast=fast_layer)
