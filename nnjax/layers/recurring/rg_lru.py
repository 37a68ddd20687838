"""The real-gated linear recurrent unit: a recurrence whose gates see only the input, so that no step waits for a product."""

from functools import partial
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
from jax import Array

from ...errors import expect_positive
from ...layer import Layer
from ...linear import affine, broadcast, broadcast_t, fold, widened
from .linear_recurrence import fast_bwd, fast_fwd, linear_recurrence_bwd, linear_recurrence_fwd
from .one_way import one_way
from .stacked import expect_options, recurrent
from .steps import over_time

SHARPNESS = 8  # c: a = exp(-c softplus(decay)) where the gate is open
SLOWEST, FASTEST = 0.999, 0.9  # between these a starts


class RGLRUParams(NamedTuple):
    """w: (n_in, 3 n_hidden), b: (3 n_hidden,), in the order input, decay gate, input gate; decay: (n_hidden,). See `rg_lru`."""

    w: Array
    b: Array
    decay: Array

    WEIGHTS = ("w",)


def _gates(z, decay):
    """(u, r, i, log a): input, decay gate, input gate, and the logarithm of a = exp(-c softplus(decay) r)."""
    u, r, i = jnp.split(z, 3, -1)
    r, i = jax.nn.sigmoid(r), jax.nn.sigmoid(i)
    return u, r, i, -SHARPNESS * broadcast(jax.nn.softplus(decay), r.shape) * r


def _share(log_a):
    """sqrt(1 - a²), which keeps its digits near a = 1; its slope at a = 1, where it has none, is 0 by convention."""
    left = -jnp.expm1(2 * log_a)
    return jnp.where(left > 0, jnp.sqrt(jnp.where(left > 0, left, 1)), 0)


def rg_lru_apply(params: Any, x: Array, h: Array, **how: Any) -> Any:
    """h_t = a h_{t-1} + sqrt(1 - a²) i u, y_t = h_t, where (u, z_r, z_i) = x_t W + b, i = sigmoid(z_i), and

    log a = -c softplus(decay) sigmoid(z_r).  All after the product is in float32 at least.  how: see `over_time`.
    """

    def step(h, x_t):
        u, _, i, log_a = _gates(widened(affine(x_t, params.w, params.b)), widened(params.decay))
        h = jnp.exp(log_a) * h + _share(log_a) * i * u
        return h, h.astype(x.dtype)

    y, h = over_time(step, x, widened(h), **how)
    return y, h.astype(x.dtype)


def rg_lru_fwd(params: Any, x: Array, h: Array, *, recur: Any = linear_recurrence_fwd) -> Any:
    z = affine(x, params.w, params.b)
    u, _, i, log_a = _gates(widened(z), widened(params.decay))
    y, _ = recur(jnp.exp(log_a), _share(log_a) * i * u, widened(h))
    y = y.astype(x.dtype)
    last = y[:, -1] if y.shape[1] else h
    return (y, last), (params, x, h, y, (z,))


def rg_lru_bwd(residuals: Any, cts: Any, *, pull: Any = linear_recurrence_bwd) -> Any:
    params, x, first, y, (z,) = residuals
    ct_y, ct_last = (widened(ct) for ct in cts)
    ct_y = ct_y.at[:, -1].add(ct_last) if y.shape[1] else ct_y
    decay = widened(params.decay)
    u, r, i, log_a = _gates(widened(z), decay)
    a, share = jnp.exp(log_a), _share(log_a)
    ct_a, ct_b, ct_h = pull((a, widened(first), widened(y)), ct_y)
    ct_share = jnp.where(share > 0, ct_b * i * u / jnp.where(share > 0, share, 1), 0)
    ct_log_a = a * (ct_a - a * ct_share)  # d sqrt(1 - a²) / d log a = -a² / sqrt(1 - a²)
    ct_r = -SHARPNESS * broadcast(jax.nn.softplus(decay), r.shape) * ct_log_a
    ct_z = jnp.concatenate([ct_b * share * i, ct_r * (r * (1 - r)), ct_b * share * u * (i * (1 - i))], -1).astype(x.dtype)
    ct_decay = broadcast_t(-SHARPNESS * r * ct_log_a, decay.shape) * jax.nn.sigmoid(decay)  # softplus' is the sigmoid
    ct_w = fold(x).T @ fold(ct_z)  # W was used at every step: one product sums over all of them
    ct_params = RGLRUParams(ct_w, broadcast_t(ct_z, params.b.shape), ct_decay.astype(x.dtype))
    return ct_params, ct_z @ params.w.T, (ct_h if y.shape[1] else ct_last).astype(x.dtype)


@overload
def rg_lru(
    n_in: int, n_hidden: int, *, carry: Literal[False] = False, bidirectional: bool = False, layers: int = 1,
    dropout: float = 0.0, lengths: bool = False,
) -> Layer[Array]: ...  # fmt: skip
@overload
def rg_lru(
    n_in: int, n_hidden: int, *, carry: bool, bidirectional: bool = False, layers: int = 1, dropout: float = 0.0,
    lengths: bool = False,
) -> Layer: ...  # fmt: skip


def rg_lru(
    n_in: int, n_hidden: int, *, carry: bool = False, bidirectional: bool = False, layers: int = 1, dropout: float = 0.0,
    lengths: bool = False,
) -> Layer:  # fmt: skip
    """h_t = a h_{t-1} + sqrt(1 - a²) i u, y_t = h_t, with log a = -8 softplus(decay) r; u and the gates r, i are of x_t alone.

    De et al. 2024 (Griffin), section 2.4, with a matrix for u, which there is the input itself, and full ones for the gates.
    Chosen among the gated linear recurrences as the one of RecurrentGemma, and as the logarithm of its decay is at hand: for a
    state that is kept for thousands of steps 1 - a² = -expm1(2 log a) keeps the digits that are lost in a itself. minGRU has no
    slow decays at the start, and in Mamba each feature has a state of many numbers.
    x: (..., time, n_in), y: (..., time, n_hidden), from the zero state. With `carry` x is (x, h) and y is (y, h), with
    h: (..., n_hidden) the state before the first step and after the last; h=None is the zero state.
    Each third of W starts as in Glorot and Bengio 2010 (eq. 16), b at zero, decay so that a is from 0.9 to 0.999 where r = 1.
    The other options are those of `lstm`. Backward: all maps but the recurrence are diagonal or products with x, and the
    recurrence's transpose is itself from the end (`linear_recurrence`).
    Raises TypeError and ValueError for params, x or state of another kind, shape or dtype.

    >>> layer = nnjax.rg_lru(3, 5)
    >>> layer.apply(layer.init(jax.random.key(0)), jnp.ones((2, 7, 3))).shape
    (2, 7, 5)
    """
    n_in, n_hidden = expect_positive("rg_lru", n_in=n_in, n_hidden=n_hidden)
    how, shape = expect_options(
        "rg_lru", carry=carry, bidirectional=bidirectional, layers=layers, dropout=dropout, lengths=lengths, truncate=None
    )
    fast = partial(rg_lru_fwd, recur=fast_fwd), partial(rg_lru_bwd, pull=fast_bwd)

    def cell(n_in, how):
        shapes = {"w": (n_in, 3 * n_hidden), "b": (3 * n_hidden,), "decay": (n_hidden,)}

        def init(key):
            *of_w, of_decay = jax.random.split(key, 4)
            glorot = jax.nn.initializers.glorot_uniform()
            w = jnp.concatenate([glorot(k, (n_in, n_hidden), jnp.float32) for k in of_w], 1)
            a = jax.random.uniform(of_decay, (n_hidden,), jnp.float32, FASTEST, SLOWEST)
            return RGLRUParams(w, jnp.zeros(shapes["b"], jnp.float32), jnp.log(jnp.expm1(-jnp.log(a) / SHARPNESS)))

        return one_way(
            "rg_lru", n_in, n_hidden, how, RGLRUParams, shapes, None, init, rg_lru_apply, rg_lru_fwd, rg_lru_bwd, fast
        )

    return recurrent("rg_lru", cell, n_in, n_hidden, how, shape)
