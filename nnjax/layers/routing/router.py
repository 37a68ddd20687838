"""Which experts a token goes to, with what weight, and the losses that keep the experts evenly busy.

The choice itself has no derivative: it is constant between ties. What is chosen has one, through the softmax.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...linear import broadcast, widened
from ..activation import softmax_apply, softmax_bwd


class Routing(NamedTuple):
    """top_k: experts of a token. over: whether the softmax runs over the "chosen" alone or over "all". balance, z: the weights
    of the two losses of `losses_apply`, or None."""

    top_k: int
    over: str
    balance: float | None = None
    z: float | None = None


def scores(rows: Array, router: Array) -> Array:
    """logits = x W, in float32 at least, as rounding decides where a token goes.  rows: (tokens, n), router: (n, experts)."""
    return widened(rows) @ widened(router)


def pick(x: Array, ids: Array) -> Array:
    """y_tj = x_t,ids_tj.  x: (tokens, experts), ids: (tokens, k). Its transpose is `pick_t`."""
    return jnp.take_along_axis(x, ids, 1, mode="promise_in_bounds")


def pick_t(ct_y: Array, ids: Array, experts: int) -> Array:
    """ct_x, (tokens, experts): each entry at its number, zeros elsewhere; a token has no number twice."""
    shape = (*ids.shape, experts)
    here = broadcast(ids[:, :, None], shape) == broadcast(jnp.arange(experts, dtype=ids.dtype)[None, None], shape)
    return jnp.where(here, broadcast(ct_y[:, :, None], shape), jnp.zeros_like(ct_y, shape=shape)).sum(1)


def gates_apply(logits: Array, how: Routing) -> tuple[Array, Array]:
    """(ids, g): the top_k experts of each token by logit, the lower number first of equal ones; and their weights.

    g = softmax of the chosen logits, or the chosen entries of the softmax of all.  ids, g: (tokens, top_k).
    """
    ids = lax.top_k(lax.stop_gradient(logits), how.top_k)[1]
    if how.over == "chosen":
        return ids, softmax_apply(pick(logits, ids))
    return ids, pick(softmax_apply(logits), ids)


def gates_bwd(residuals: Any, ct_g: Array, how: Routing) -> Array:
    logits, ids, g = residuals
    if how.over == "chosen":
        return pick_t(softmax_bwd((g,), ct_g), ids, logits.shape[1])
    return softmax_bwd((softmax_apply(logits),), pick_t(ct_g, ids, logits.shape[1]))


def losses_apply(logits: Array, load: Array, how: Routing) -> Array:
    """balance E sum_e f_e P_e + z mean_t (log sum_e exp l_te)², f_e the share of expert e in all choices, P_e its mean
    probability over the tokens.  logits: (tokens, E), load: (E,), the f_e, which have no derivative; value: ().

    The first is 1 where all experts get as many, and at most E (Fedus et al. 2022, eq. 4); the second keeps logits small (Zoph
    et al. 2022, eq. 5).
    """
    (tokens, experts), value = logits.shape, jnp.zeros_like(logits, shape=())
    if how.balance is not None:
        value = value + how.balance * experts / max(tokens, 1) * (softmax_apply(logits).sum(0) * load).sum()
    if how.z is not None:
        value = value + how.z / max(tokens, 1) * (jax.nn.logsumexp(logits, axis=-1) ** 2).sum()
    return value


def losses_bwd(residuals: Any, ct: Array, how: Routing) -> Array:
    logits, load = residuals
    (tokens, experts), p = logits.shape, softmax_apply(logits)
    ct_logits = jnp.zeros_like(logits)
    if how.balance is not None:  # P_e sums over the tokens: each of them gets the same ct_p
        ct_p = ct * (how.balance * experts / max(tokens, 1)) * load
        ct_logits = ct_logits + softmax_bwd((p,), broadcast(ct_p[None], p.shape))
    if how.z is not None:  # the gradient of log sum exp is the softmax
        log_z = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        ct_logits = ct_logits + p * broadcast(ct * (2 * how.z / max(tokens, 1)) * log_z, p.shape)
    return ct_logits
