"""A student's distribution over many classes is drawn to a teacher's, neither ever formed all at once.

x = ((h, w[, b]), (teacher_h, teacher_w[, teacher_b])[, weights]): the teacher takes the place of labels, and is fixed, so that
it has no cotangent. How the fused forms go is said in `rows`.
"""

import math
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ..errors import describe, expect_float, real_number
from ..fast.choose import as_it_is
from ..layer import Layer, plain
from ..linear import broadcast, fold
from .example import Rows
from .rows import Table, closed_loss, expect_table, for_the_platform, plainly, scores

TEACHER = ("teacher_h", "teacher_w", "teacher_b")
TEACHERS = ("x[1]",)  # the inputs that are the teacher's, which is fixed


def _log_softmax(s: Array) -> Array:
    below = s - broadcast(lax.stop_gradient(s.max(-1, keepdims=True)), s.shape)
    return below - broadcast(jnp.log(jnp.exp(below).sum(-1, keepdims=True)), s.shape)


def _both(s: Array, h: Array, table: Table, temperature: float, held: Any = as_it_is) -> tuple[Array, Array]:
    """(log Q, log P) of the student's scores s: (..., v), and of the teacher, which is fixed.  h: (..., d)."""
    t = lax.stop_gradient(scores(fold(h), table, held)).reshape(s.shape).astype(s.dtype)
    return _log_softmax(s / temperature), _log_softmax(t / temperature)


def _apart(log_p: Array, log_x: Array) -> Array:
    """p (log p - log x), 0 where p = 0, whatever x."""
    none = jnp.isneginf(log_p)
    p = jnp.exp(log_p)
    return p * jnp.where(none, jnp.zeros_like(p), jnp.where(none, jnp.zeros_like(p), log_p) - log_x)


def _middle(log_q: Array, log_p: Array, beta: float) -> Array:
    """log(beta P + (1 - beta) Q), 0 where both are 0."""
    m = beta * jnp.exp(log_p) + (1 - beta) * jnp.exp(log_q)
    return jnp.log(jnp.where(m == 0, jnp.ones_like(m), m))


def _divergence(log_q: Array, log_p: Array, beta: float) -> Array:
    if beta in (0, 1):
        return _apart(*((log_q, log_p) if beta else (log_p, log_q))).sum(-1)
    log_m = _middle(log_q, log_p, beta)
    return (beta * _apart(log_p, log_m) + (1 - beta) * _apart(log_q, log_m)).sum(-1)


def jensen_shannon_apply(s: Array, labels: Array, shared: Table, *, beta: float, temperature: float) -> Array:
    """l = beta KL(P, M) + (1 - beta) KL(Q, M),  M = beta P + (1 - beta) Q;  KL(P, Q) for beta = 0, KL(Q, P) for beta = 1.

    s: (..., v) with Q = softmax(s / T); labels, shared: the teacher's rows (..., d) and table, with P likewise; l: (...).
    """
    return _divergence(*_both(s, labels, shared, temperature), beta)


def jensen_shannon_fwd(s: Array, labels: Array, shared: Table, *, beta: float, temperature: float, held: Any = as_it_is) -> Any:
    both = _both(s, labels, shared, temperature, held)
    return _divergence(*both, beta), both


def jensen_shannon_bwd(residuals: Any, ct_losses: Array, *, beta: float, temperature: float) -> Any:
    log_q, log_p = residuals
    ct, q = broadcast(ct_losses[..., None] / temperature, log_q.shape), jnp.exp(log_q)
    if beta == 0:
        return ct * (q - jnp.exp(log_p)), None
    # What Q does to M adds up to a constant, which the softmax takes away: left are (1 - beta) Q (log Q - log M), less its sum.
    q_slope = (1 - beta or 1) * _apart(log_q, log_p if beta == 1 else _middle(log_q, log_p, beta))
    return ct * (q_slope - q * broadcast(q_slope.sum(-1, keepdims=True), q.shape)), None


def _expect(name: str) -> Any:
    def check(y, labels, weights, shared):
        if not isinstance(labels, tuple) or len(labels) not in (2, 3):
            raise TypeError(
                f"{name}: labels must be the teacher's (h, w) or (h, w, b), got {describe(labels)}; pass its last rows and its "
                "table."
            )
        h, *table = labels
        expect_float(name, TEACHER[0], h)
        w, _ = expect_table(name, h, tuple(table), TEACHER)
        if (*h.shape[:-1], w.shape[0]) != tuple(y.shape):
            raise ValueError(
                f"{name}: teacher and student must have the same rows and classes, got {(*h.shape[:-1], w.shape[0])} and "
                f"{tuple(y.shape)}; cut both vocabularies to what they share."
            )

    return check


def _parts(labels: Any, shared: None) -> Any:
    h, *table = labels
    return h, Table(*table)


def distillation(name: str, beta: float, temperature: Any, reduction: str) -> Layer[Array]:
    """The fused Jensen-Shannon divergence of this name. Raises ValueError for a temperature that is not above 0."""
    t = real_number(temperature)
    if t is None or not 0 < t < math.inf:
        raise ValueError(
            f"{name}: temperature must be a number above 0, got {temperature!r}; 1.0 leaves the scores as they are."
        )
    apply, fwd, bwd = (
        partial(f, beta=beta, temperature=t) for f in (jensen_shannon_apply, jensen_shannon_fwd, jensen_shannon_bwd)
    )
    rows = Rows(apply, fwd, bwd, _expect(name), parts=_parts)
    on_cpu = rows._replace(fwd=partial(fwd, held=lax.optimization_barrier))
    made = closed_loss(name, rows, reduction, plainly(rows), for_the_platform(rows, on_cpu))
    return made._replace(cuts=TEACHERS, plain=plain(made)._replace(cuts=TEACHERS))


def linear_kl_divergence(*, temperature: float = 1.0, reduction: str = "mean") -> Layer[Array]:
    """The mean over rows of KL(P, Q) = sum_j P_j (log P_j - log Q_j),  Q = softmax((h wᵀ + b) / T), P the teacher's likewise.

    Forward distillation, in chunks of rows. x = ((h, w), (teacher_h, teacher_w)) or with weights; (h, w, b) for a bias.
    h: (..., n), w: (vocabulary, n), b: (vocabulary,); teacher_h: (..., m), teacher_w: (vocabulary, m), the same rows and
    classes; weights: (...), 0 for rows to ignore.  temperature T; the gradient shrinks as 1 / T^2, which some multiply back
    (Hinton et al. 2015). reduction: "mean" over rows, "sum" or "none".  A bias of -inf takes a class away.
    The transpose: ct_s = ct (Q - P) / T goes back to h as ct_s w, and to w as ct_sᵀ h. The teacher has no gradient.
    Raises TypeError or ValueError where these do not fit.

    >>> h, w = jnp.ones((2, 3)), jnp.eye(4, 3)
    >>> abs(float(nnjax.linear_kl_divergence().apply((), ((h, w), (h, w))))) < 1e-6
    True
    """
    return distillation("linear_kl_divergence", 0.0, temperature, reduction)


def linear_jensen_shannon(*, beta: float = 0.5, temperature: float = 1.0, reduction: str = "mean") -> Layer[Array]:
    """The mean over rows of beta KL(P, M) + (1 - beta) KL(Q, M),  M = beta P + (1 - beta) Q, of student Q and teacher P.

    The generalised Jensen-Shannon divergence (Agarwal et al. 2024, eq. 1); beta = 0 stands for KL(P, Q), beta = 1 for KL(Q, P).
    x, temperature, reduction: as in `nnjax.linear_kl_divergence`.
    The transpose: ct_s = ct (g - Q sum_j g_j) / T with g = (1 - beta) Q (log Q - log M), then as there.
    Raises as it does, and ValueError for a beta outside 0 ... 1.

    >>> h, w = jnp.ones((2, 3)), jnp.eye(4, 3)
    >>> value = nnjax.linear_jensen_shannon().apply((), ((h, w), (h, -w)))
    >>> 0 < float(value) < 0.6932  # log 2 at most
    True
    """
    name, share = "linear_jensen_shannon", real_number(beta)
    if share is None or not 0 <= share <= 1:
        raise ValueError(f"{name}: beta must lie in 0 ... 1, got {beta!r}; 0.5 is the symmetric divergence.")
    return distillation(name, share, temperature, reduction)
