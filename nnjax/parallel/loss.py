"""The loss of a batch whose examples lie on several devices."""

import jax.numpy as jnp

from ..layer import Layer, expect_layer
from ..linear import broadcast
from ..losses import total_weight
from .collectives import Axis, reduce_from, reduce_from_t


def _shares(x, value, axis):
    """This device's share of the weight of the whole batch, and its part of the mean; that of nothing counts for nothing."""
    w = total_weight(x).astype(value.dtype)
    none = w == 0
    total, part = reduce_from((w, jnp.where(none, jnp.zeros_like(value), w * value)), axis)
    return jnp.where(none, jnp.zeros_like(w), w / reduce_from_t(total, axis)), total, part


def mean_over(loss: Layer, axis: Axis) -> Layer:
    """The loss of all the devices' examples: sum_k W_k value_k / sum_k W_k, W_k the total weight on device k.

    A mean of means would count every device alike, however few examples it has. One all-reduce of two numbers; the
    transpose hands ct_value to every device, times its share W_k / sum W.  x, params: those of the loss.
    """
    expect_layer("mean_over", loss)

    def apply(params, x, *, key=None):
        _, total, part = _shares(x, loss.apply(params, x), axis)
        return part / total

    def fwd(params, x, *, key=None):
        local, residuals = loss.fwd(params, x)
        share, total, part = _shares(x, local, axis)
        value = part / total
        return value, (residuals, share, local, value, total)

    def bwd(residuals, ct_value):
        residuals, share, local, value, total = residuals
        ct = reduce_from_t(ct_value, axis)
        ct_params, (ct_y, ct_labels, *ct_weights) = loss.bwd(residuals, ct * share)
        if ct_weights:  # weight on one device also takes from the share of the others: sum_k W_k (value_k - value) / sum W
            apart = (jnp.where(share == 0, jnp.zeros_like(local), local) - value) / total
            ct_weights = [w + broadcast(ct * apart, w.shape) for w in ct_weights]
        return ct_params, (ct_y, ct_labels, *ct_weights)

    return Layer(f"mean_over({loss.name})", loss.init, apply, fwd, bwd)
