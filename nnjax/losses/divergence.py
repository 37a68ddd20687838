"""The divergence of given log-probabilities from target probabilities."""

from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array

from ..errors import expect_flag
from ..layer import Layer
from ..linear import broadcast, wide
from .example import Rows, loss
from .regression import expect_targets


def _targets(y, labels, log_target):
    """(y, q, log q), y and log q 0 where q = 0, so that nothing is multiplied by an infinity there."""
    y, t = y.astype(wide(y)), labels.astype(wide(y))
    q = jnp.exp(t) if log_target else t
    none = q == 0
    log_q = t if log_target else jnp.log(jnp.where(none, jnp.ones_like(q), q))
    return *(jnp.where(none, jnp.zeros_like(v), v) for v in (y, q)), jnp.where(none, jnp.zeros_like(q), log_q)


def kl_divergence_apply(y: Array, labels: Array, shared: None = None, *, log_target: bool) -> Array:
    """l = sum_j q_j (log q_j - y_j), 0 where q_j = 0.  y, labels: (..., n), l: (...) in float32 at least."""
    y, q, log_q = _targets(y, labels, log_target)
    return (q * (log_q - y)).sum(-1)


def kl_divergence_fwd(y: Array, labels: Array, shared: None = None, *, log_target: bool) -> Any:
    return kl_divergence_apply(y, labels, log_target=log_target), (y, labels)


def kl_divergence_bwd(residuals: Any, ct_losses: Any, *, log_target: bool) -> Any:
    y, labels = residuals
    apart, q, log_q = _targets(y, labels, log_target)
    ct = broadcast(ct_losses[..., None], y.shape)
    slope = log_q - apart + 1  # of q (log q - y) in q; the chain rule multiplies it by q if q = exp(t)
    ct_t = ct * (q * slope if log_target else jnp.where(q == 0, jnp.zeros_like(q), slope))
    return (-ct * q).astype(y.dtype), ct_t.astype(y.dtype)


def kl_divergence(*, log_target: bool = False, reduction: str = "mean") -> Layer[Array]:
    """The mean over examples of sum_j q_j (log q_j - y_j), the divergence of the distribution exp(y) from q.

    y: (..., n) log-probabilities, such as the output of `nnjax.log_softmax`; labels: q, or log q if `log_target`, of the same
    shape; weights: (...); reduction: "mean" over examples (PyTorch's "batchmean"), "sum" or "none". q_j = 0 adds nothing, and
    has no gradient. `nnjax.linear_kl_divergence` includes the last linear map and the softmax.
    The transpose: ct_y = -ct q, and ct_q = ct (log q + 1 - y).
    Raises TypeError and ValueError where y, labels and weights are not of one dtype and of these shapes.

    >>> y, q = jnp.log(jnp.array([[0.5, 0.5]])), jnp.array([[1.0, 0.0]])
    >>> round(float(nnjax.kl_divergence().apply((), (y, q))), 4)
    0.6931
    """
    name = "kl_divergence"
    expect_flag(name, log_target=log_target)
    how = {"log_target": bool(log_target)}
    apply, fwd, bwd = (partial(f, **how) for f in (kl_divergence_apply, kl_divergence_fwd, kl_divergence_bwd))
    return loss(name, Rows(apply, fwd, bwd, expect_targets(name)), reduction)
