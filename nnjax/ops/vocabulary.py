"""Losses over a large vocabulary inside anyone's `jax.grad`; their value alone is computed in chunks too."""

from collections.abc import Hashable
from typing import Any

from jax import Array

from ..errors import expect_flag, real_number
from ..layer import Layer, as_custom_vjp
from ..losses.cross_entropy import entropy
from ..losses.distillation import linear_jensen_shannon as _jensen_shannon
from ..losses.distillation import linear_kl_divergence as _kl_divergence
from ..losses.example import constants
from ..losses.fused import shared_linear_cross_entropy
from ..losses.preference import linear_dpo as _dpo
from ..losses.reduction import expect_reduction
from ..trees.varying import together
from .remembered import remembered

WHO = "ops.linear_cross_entropy"


def _lean(loss: Layer[Array]) -> Any:
    """The loss as a function whose value, without its gradient, is that of `fwd`: the definition forms all scores."""
    return as_custom_vjp(loss._replace(apply=lambda params, x, *, key=None: loss.fwd(params, x)[0]))


_linear_cross_entropy = remembered(lambda *how: _lean(shared_linear_cross_entropy(*how)))
_made = remembered(lambda make, **how: _lean(make(**how)))


def _loss(make: Any, **how: Any) -> Any:
    """The loss, made once for the same options: numbers of NumPy and JAX are first made those of Python."""
    plain = {name: v if isinstance(v, int) or (x := real_number(v)) is None else x for name, v in how.items()}
    return _made(make, **plain) if all(isinstance(v, Hashable) for v in plain.values()) else _lean(make(**plain))


def _given(*arrays: Any) -> tuple[Any, ...]:
    """Those that are given."""
    return tuple(a for a in arrays if a is not None)


def linear_cross_entropy(
    h: Array, w: Array, labels: Array, *, bias: Array | None = None, weights: Array | None = None, class_weights: Any = None,
    ignore_index: int | None = -100, label_smoothing: float = 0.0, z_loss: float = 0.0, softcap: float | None = None,
    reduction: str = "mean", kernel: bool = False,
) -> Array:  # fmt: skip
    """The mean over rows of -log softmax(h wᵀ + b)[label], in chunks of rows, so that the scores never exist all at once.

    h: (..., n), w: (vocabulary, n), labels: integers (...), or probabilities (..., vocabulary), with a cotangent too; bias:
    (vocabulary,), weights: (...).  The options are those of `nnjax.softmax_cross_entropy`; class_weights, (vocabulary,), may be
    traced, but have no gradient. With reduction "none" each row has a cotangent of its own, for which the scores are formed
    again.  Raises like the loss of that name.
    kernel: on a GPU or TPU, use Pallas kernels, which form scores block by block, three times over. They take float32,
    bfloat16 and, on a GPU, float16, at least two classes, and on a TPU as many features as its fast memory holds (4096 in
    float32); class numbers, without a bias, smoothing, z_loss and softcap. Otherwise it has no effect. A program with kernels
    is exported for one platform at a time.

    >>> h, w, labels = jnp.zeros((2, 3)), jnp.ones((4, 3)), jnp.array([0, 3])
    >>> jax.grad(nnjax.ops.linear_cross_entropy)(h, w, labels).shape
    (2, 3)
    """
    expect_flag(WHO, kernel=kernel)
    expect_reduction(WHO, reduction)
    how = entropy(WHO, label_smoothing, z_loss, softcap, ignore_index)
    loss = _linear_cross_entropy(how, reduction, bool(kernel))
    shared = None if class_weights is None else constants(WHO, "class_weights", class_weights)
    return loss(*together((shared, ((h, w, *_given(bias)), labels, *_given(weights)))))


def linear_kl_divergence(
    h: Array, w: Array, teacher_h: Array, teacher_w: Array, *, bias: Array | None = None, teacher_bias: Array | None = None,
    weights: Array | None = None, temperature: float = 1.0, reduction: str = "mean",
) -> Array:  # fmt: skip
    """The mean over rows of KL(P, Q), Q = softmax((h wᵀ + b) / T), P the teacher's: forward distillation, in chunks of rows.

    h: (..., n), w: (vocabulary, n), bias: (vocabulary,); teacher_h: (..., m), teacher_w: (vocabulary, m), teacher_bias
    likewise, without a gradient; weights: (...).  The options are those of `nnjax.linear_kl_divergence`, and it raises so too.

    >>> h, w = jnp.ones((2, 3)), jnp.eye(4, 3)
    >>> jax.grad(nnjax.ops.linear_kl_divergence)(h, w, h, 2 * w).shape
    (2, 3)
    """
    loss = _loss(_kl_divergence, temperature=temperature, reduction=reduction)
    return loss((), together(((h, w, *_given(bias)), (teacher_h, teacher_w, *_given(teacher_bias)), *_given(weights))))


def linear_jensen_shannon(
    h: Array, w: Array, teacher_h: Array, teacher_w: Array, *, bias: Array | None = None, teacher_bias: Array | None = None,
    weights: Array | None = None, beta: float = 0.5, temperature: float = 1.0, reduction: str = "mean",
) -> Array:  # fmt: skip
    """The mean over rows of beta KL(P, M) + (1 - beta) KL(Q, M),  M = beta P + (1 - beta) Q, in chunks of rows.

    The arguments are those of `linear_kl_divergence`, the options those of `nnjax.linear_jensen_shannon`.

    >>> h, w = jnp.ones((2, 3)), jnp.eye(4, 3)
    >>> jax.grad(nnjax.ops.linear_jensen_shannon)(h, w, h, 2 * w).shape
    (2, 3)
    """
    loss = _loss(_jensen_shannon, beta=beta, temperature=temperature, reduction=reduction)
    return loss((), together(((h, w, *_given(bias)), (teacher_h, teacher_w, *_given(teacher_bias)), *_given(weights))))


def linear_dpo(
    h: Array, w: Array, labels: Array, reference: Any, *, bias: Array | None = None, weights: Array | None = None,
    beta: float = 0.1, label_smoothing: float = 0.0, ignore_index: int | None = -100, reduction: str = "mean",
    kernel: bool = False,
) -> Array:  # fmt: skip
    """The mean over pairs of -log sigmoid(beta (log pi_c - log ref_c - log pi_r + log ref_r)), in chunks of tokens.

    h: (..., 2, tokens, n), chosen before rejected; w: (vocabulary, n); labels: integers (..., 2, tokens); reference:
    log-probabilities (..., 2), or (h, w[, b]) of the reference model, without a gradient; bias: (vocabulary,); weights: (...).
    The options are those of `nnjax.linear_dpo`, and it raises like that.

    >>> h, w, labels = jnp.ones((5, 2, 3, 4)), jnp.eye(6, 4), jnp.zeros((5, 2, 3), jnp.int32)
    >>> jax.grad(nnjax.ops.linear_dpo)(h, w, labels, jnp.zeros((5, 2))).shape
    (5, 2, 3, 4)
    """
    loss = _loss(
        _dpo, beta=beta, label_smoothing=label_smoothing, ignore_index=ignore_index, reduction=reduction, kernel=kernel
    )
    return loss((), together(((h, w, *_given(bias)), (labels, reference), *_given(weights))))
