"""The linear recurrence h_t = a_t h_{t-1} + b_t, entry by entry, and its transpose: the same recurrence from the end.

A step is the map h -> a h + b. Two in a row are one such map again, h -> a2 a1 h + (a2 b1 + b2), so the steps may be joined in
any grouping: by pairs, all at once, in log2(time) rounds (Blelloch 1990; Martin and Cundy 2018).
"""

import math
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ...errors import describe, expect_flag, expect_float, expect_params, expect_same_dtype, expect_shape
from ...fast.choose import by_platform
from ...fast.cpu import recurrence as cpu
from ...layer import Layer
from ...leaf import leaf, outline, outlined
from ...linear import widened
from .steps import one_earlier, one_later, time_first


def by_pairs(a: Array, b: Array, h: Array, *, reverse: bool = False) -> Array:
    """h_t = a_t h_{t-1} + b_t, in float32 at least, by an associative scan.  a, b: (batch, time, n), h: (batch, n)."""

    def joined(before, after):
        (a1, b1), (a2, b2) = before, after
        return a2 * a1, a2 * b1 + b2

    if a.shape[1] == 0:
        return widened(b)
    a, b, start = widened(a), widened(b), -1 if reverse else 0
    b = b.at[:, start].add(a[:, start] * widened(h))
    return lax.associative_scan(joined, (a, b), reverse=reverse, axis=1)[1]


def linear_recurrence_apply(a: Array, b: Array, h: Array, *, reverse: bool = False) -> Array:
    """h_t = a_t h_{t-1} + b_t.  a, b and the result: (batch, time, n), h: (batch, n).  reverse: from the last step on.

    The state is kept in float32 at least: in low precision it would no longer take in what is small beside it.
    """

    def step(h, now):
        a_t, b_t = (widened(v) for v in now)
        h = a_t * h + b_t
        return h, h.astype(a.dtype)

    return time_first(lax.scan(step, widened(h), (time_first(a), time_first(b)), reverse=reverse)[1])


def linear_recurrence_fwd(a: Array, b: Array, h: Array, *, reverse: bool = False) -> Any:
    y = by_pairs(a, b, h, reverse=reverse).astype(a.dtype)
    return y, (a, h, y)


def linear_recurrence_bwd(residuals: Any, ct_y: Array, *, reverse: bool = False) -> Any:
    a, h, y = residuals
    before, after = (one_later, one_earlier) if reverse else (one_earlier, one_later)
    # h_t was used twice, as output and in h_{t+1} = a_{t+1} h_t + b_{t+1}: its two cotangents add, from the last step on.
    ct_b = by_pairs(after(a, jnp.zeros_like(h)), ct_y, jnp.zeros_like(h), reverse=not reverse)
    ct_a = ct_b * widened(before(y, h))
    ct_h = (widened(a) * ct_b)[:, -1:].sum(1) if reverse else (widened(a) * ct_b)[:, :1].sum(1)
    return ct_a.astype(a.dtype), ct_b.astype(a.dtype), ct_h.astype(a.dtype)


def fast_fwd(a: Array, b: Array, h: Array, *, reverse: bool = False) -> Any:
    """`linear_recurrence_fwd`, spelled for the platform."""
    y = by_platform(a, b, h, plain=by_pairs, cpu=cpu.recur, how={"reverse": reverse}).astype(a.dtype)
    return y, (a, h, y)


def fast_bwd(residuals: Any, ct_y: Array, *, reverse: bool = False) -> Any:
    """`linear_recurrence_bwd`, spelled for the platform."""
    return by_platform(residuals, ct_y, plain=linear_recurrence_bwd, cpu=cpu.recur_bwd, how={"reverse": reverse})


def linear_recurrence(*, reverse: bool = False) -> Layer[Array]:
    """h_t = a_t h_{t-1} + b_t for each entry.  x: (a, b), or (a, b, h) with the state before the first step, else 0.

    a, b and the result: (..., time, n), h: (..., n).  reverse: h_t = a_t h_{t+1} + b_t, from the state h after the last step.
    Backward: ct_b_t = ct_h_t + a_{t+1} ct_b_{t+1}, the same recurrence from the end; ct_a_t = ct_b_t h_{t-1}.
    On a GPU and TPU it is joined by pairs, with products of many a: for |a| > 1 these may overflow before h does.
    `nnjax.ops.linear_recurrence` takes the arrays one by one, along any axis.
    Raises TypeError and ValueError for arrays of another kind, shape or dtype.

    >>> a, b = jnp.full((3, 1), 0.5), jnp.ones((3, 1))
    >>> nnjax.linear_recurrence().apply((), (a, b)).tolist()
    [[1.0], [1.5], [1.75]]
    """
    name = "linear_recurrence"
    expect_flag(name, reverse=reverse)
    reverse = bool(reverse)

    def entered(params, x):
        """(a, b, h) with one batch axis, the leading axes."""
        expect_params(name, params, tuple)
        if not isinstance(x, tuple) or len(x) not in (2, 3):
            raise TypeError(f"{name}: x must be the tuple (a, b), or (a, b, h), got {describe(x)}; pass these.")
        a, b, *h = x
        expect_float(name, "a", a)
        if a.ndim < 2:
            raise ValueError(f"{name}: a must have shape (..., time, n), got {describe(a)}; add the axis that is missing.")
        lead, (time, n) = a.shape[:-2], a.shape[-2:]
        expect_shape(name, "b", b, a.shape)
        expect_same_dtype(name, "b", b, "a", a)
        for state in h:
            expect_shape(name, "h", state, (*lead, n))
            expect_same_dtype(name, "h", state, "a", a)
        rows = math.prod(lead)
        first = h[0].reshape(rows, n) if h else jnp.zeros_like(a, shape=(rows, n))
        return a.reshape(rows, time, n), b.reshape(rows, time, n), first

    def apply(params, x, *, key=None):
        return linear_recurrence_apply(*entered(params, x), reverse=reverse).reshape(x[0].shape)

    def fwd(params, x, *, key=None, recur=linear_recurrence_fwd):
        y, residuals = recur(*entered(params, x), reverse=reverse)
        y = y.reshape(x[0].shape)
        return y, (residuals, () if len(x) == 3 else None, outline(y))

    def bwd(residuals, ct_y, *, pull=linear_recurrence_bwd):
        (a, h, y), given, _ = residuals
        ct_a, ct_b, ct_h = pull((a, h, y), ct_y.reshape(a.shape), reverse=reverse)
        lead = ct_y.shape[:-2]
        ct_a, ct_b = ct_a.reshape(ct_y.shape), ct_b.reshape(ct_y.shape)
        return (), (ct_a, ct_b) if given is None else (ct_a, ct_b, ct_h.reshape(*lead, ct_h.shape[-1]))

    fast = partial(fwd, recur=fast_fwd), partial(bwd, pull=fast_bwd)
    return leaf(name, lambda key: (), apply, fwd, bwd, lambda residuals: outlined(residuals[2]), fast=fast)
