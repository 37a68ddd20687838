"""Losses of given outputs inside anyone's `jax.grad`."""

from typing import Any

from jax import Array

from ..layer import as_custom_vjp
from ..losses.cross_entropy import entropy, entropy_rows
from ..losses.example import constants, shared_loss
from ..losses.reduction import expect_reduction
from ..trees.varying import together
from .remembered import remembered

WHO = "ops.softmax_cross_entropy"

_softmax_cross_entropy = remembered(lambda how, reduction: as_custom_vjp(shared_loss(WHO, entropy_rows(WHO, how), reduction)))


def softmax_cross_entropy(
    logits: Array, labels: Array, *, weights: Array | None = None, class_weights: Any = None, ignore_index: int | None = -100,
    label_smoothing: float = 0.0, z_loss: float = 0.0, softcap: float | None = None, reduction: str = "mean",
) -> Array:  # fmt: skip
    """The mean over examples of the cross-entropy of softmax(logits) with class numbers or probabilities.

    logits: (..., n); labels: integers (...), or probabilities (..., n), with a cotangent too; weights: (...).
    The options are those of `nnjax.softmax_cross_entropy`; class_weights, (n,), may be traced, but have no gradient.
    What is kept for the backward is the logits, and two numbers for each row.  Raises as the loss of that name.

    >>> y, labels = jnp.zeros((2, 4)), jnp.array([0, -100])
    >>> jax.grad(nnjax.ops.softmax_cross_entropy)(y, labels).tolist()
    [[-0.75, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 0.0]]
    """
    expect_reduction(WHO, reduction)
    loss = _softmax_cross_entropy(entropy(WHO, label_smoothing, z_loss, softcap, ignore_index), reduction)
    shared = None if class_weights is None else constants(WHO, "class_weights", class_weights)
    return loss(*together((shared, (logits, labels) if weights is None else (logits, labels, weights))))
