"""Truncated backpropagation through time: the cotangent of the state goes no further back than the last multiple of k.

What is left is not the gradient: whatever a later part of the sequence owes to an earlier one is missing. It is the gradient
of a definition in which the state is taken as given at these steps (`stop_gradient`), and `truncation_bias` says how far
that is from the whole. Williams and Peng 1990; here all parts have k steps and none overlap.

Between two cuts nothing goes back, so the backward of every part is independent of the others: parts become more rows of the
batch, and the loop is k steps long.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .steps import one_earlier, time_first

Fwd = Callable[..., Any]  # (params, x, state, *padding) -> ((y, last), (params, x, state, y, kept)), x: (batch, time, n)


def truncated(fwd: Fwd, bwd: Callable[..., Any], k: int) -> tuple[Fwd, Callable[..., Any]]:
    """The pair of a recurrence whose state is cut at every multiple of k; the same value and residuals as fwd.

    kept: arrays with time first.  bwd(residuals, cts) may use only h of the state in the residuals.
    The backward also takes ends, (batch,): the step at which the last state was reached, T - 1 for all by default.
    """

    def cut_fwd(params, x, state, *padding):
        batch, time, _ = x.shape
        whole = time - time % k
        if time <= k:
            return fwd(params, x, state, *padding)

        def one(state, now):
            first, part = now
            state = jax.tree.map(lambda s: jnp.where(first, s, lax.stop_gradient(s)), state)
            (y, last), (*_, kept) = fwd(params, part[0], state, *part[1:])
            return last, (y, kept)

        parts = [time_first(v[:, :whole].reshape(batch, whole // k, k, *v.shape[2:])) for v in (x, *padding)]
        last, (y, kept) = lax.scan(one, state, (jnp.arange(whole // k) == 0, parts))
        y, kept = time_first(y).reshape(batch, whole, y.shape[-1]), jax.tree.map(lambda v: v.reshape(whole, *v.shape[2:]), kept)
        if whole < time:
            rest = (v[:, whole:] for v in (x, *padding))
            (y_rest, last), (*_, more) = fwd(params, next(rest), lax.stop_gradient(last), *rest)
            y, kept = jnp.concatenate([y, y_rest], 1), jax.tree.map(lambda a, b: jnp.concatenate([a, b]), kept, more)
        return (y, last), (params, x, state, y, kept)

    def cut_bwd(residuals, cts, ends=None):
        params, x, state, y, kept = residuals
        ct_y, ct_last = cts
        batch, time, _ = x.shape
        if time <= k:
            return bwd(residuals, cts)
        count, whole = time // k, time - time % k
        part = jnp.full((batch,), (time - 1) // k, jnp.int32) if ends is None else ends // k  # that the last state is from
        before = one_earlier(y, h_of(state))

        def rows(v):  # (batch, time, n) -> (batch count, k, n)
            return v[:, :whole].reshape(batch * count, k, v.shape[-1])

        def kept_rows(v):  # (time, batch, n) -> (k, batch count, n)
            return v[:whole].reshape(count, k, batch, v.shape[-1]).transpose(1, 2, 0, 3).reshape(k, batch * count, v.shape[-1])

        def ending(i):  # the last state's cotangent for the parts i that it is from, 0 for all others
            here = part[:, None, None] == i[None, :, None]
            return jax.tree.map(
                lambda ct: jnp.where(here, ct[:, None], jnp.zeros_like(ct)[:, None]).reshape(batch * i.size, ct.shape[-1]),
                ct_last,
            )

        starts = before[:, :whole:k]  # given, as in the definition, but for the first
        starts = jnp.concatenate([starts[:, :1], lax.stop_gradient(starts[:, 1:])], 1).reshape(batch * count, y.shape[-1])
        kept_whole = jax.tree.map(kept_rows, kept)
        found = params, rows(x), with_h(state, starts), rows(y), kept_whole
        ct_params, ct_x, ct_state = bwd(found, (rows(ct_y), ending(jnp.arange(count, dtype=jnp.int32))))
        ct_x = ct_x.reshape(batch, whole, ct_x.shape[-1])
        ct_state = jax.tree.map(lambda ct: ct.reshape(batch, count, ct.shape[-1])[:, 0], ct_state)  # the others are cut
        if whole < time:
            found = (
                params,
                x[:, whole:],
                with_h(state, lax.stop_gradient(before[:, whole])),
                y[:, whole:],
                jax.tree.map(lambda v: v[whole:], kept),
            )
            ct_rest, ct_x_rest, _ = bwd(found, (ct_y[:, whole:], ending(jnp.full((1,), count, jnp.int32))))
            ct_params = jax.tree.map(jnp.add, ct_params, ct_rest)
            ct_x = jnp.concatenate([ct_x, ct_x_rest], 1)
        return ct_params, ct_x, ct_state

    return cut_fwd, cut_bwd


def h_of(state: Any) -> Array:
    """The part of a state that is the output of the step before."""
    return getattr(state, "h", state)


def with_h(state: Any, h: Any) -> Any:
    """The state with another h."""
    return state._replace(h=h) if hasattr(state, "h") else h
