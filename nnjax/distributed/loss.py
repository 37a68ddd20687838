"""The loss of a batch with its examples on several devices."""

import jax.numpy as jnp
from jax import Array

from ..layer import Layer, expect_layer
from ..linear import broadcast, wide
from ..losses.reduction import total_weight
from .collectives import Axis, reduce_from, reduce_from_t


def _shares(x, value, axis, counts):
    """This device's share of the weight of the whole batch, and the mean over all devices, in float32 at least.

    The mean of an empty part is NaN, and does not count.
    """
    w = total_weight(x, counts).astype(wide(value))
    none = w == 0
    value = jnp.where(none, jnp.zeros_like(w), value.astype(w.dtype))
    total, part = reduce_from((w, w * value), axis)
    some = jnp.where(total == 0, jnp.ones_like(total), total)
    share = jnp.where(none, jnp.zeros_like(w), w / reduce_from_t(some, axis))
    return share, total, jnp.where(total == 0, jnp.full_like(part, jnp.nan), part / some)


def mean_over(loss: Layer[Array], axis: Axis) -> Layer[Array]:
    """The loss of all the devices' examples: sum_k W_k value_k / sum_k W_k, W_k the total weight on device k.

    A mean of means would count every device equally, however few examples it has. It takes one all-reduce of two numbers; the
    transpose copies ct_value to every device, times its share W_k / sum W.  x, params: those of the loss.
    Raises ValueError for a loss that is no mean. See `on_mesh`.
    """
    expect_layer("mean_over", loss)

    def apply(params, x, *, key=None):
        local = loss.apply(params, x)
        return _shares(x, local, axis, loss.counts)[2].astype(local.dtype)

    def fwd(params, x, *, key=None):
        local, residuals = loss.fwd(params, x)
        share, total, value = _shares(x, local, axis, loss.counts)
        each = loss.counts(x[1], share.dtype) if loss.counts and len(x) == 3 else None
        return value.astype(local.dtype), (residuals, share, local, value, total, each)

    def bwd(residuals, ct_value):
        residuals, share, local, value, total, each = residuals
        ct = reduce_from_t(ct_value, axis)
        wide_ct = ct.astype(share.dtype)
        ct_params, (ct_y, ct_labels, *ct_weights) = loss.bwd(residuals, (wide_ct * share).astype(ct.dtype))
        if ct_weights:  # weight on one device also reduces the share of the others: sum_k W_k (value_k - value) / sum W
            kept = jnp.where(share == 0, jnp.zeros_like(share), local.astype(share.dtype))
            apart = jnp.where(total == 0, jnp.zeros_like(share), (kept - value) / total)
            apart = [broadcast(wide_ct * apart, w.shape) for w in ct_weights]  # times what an example counts
            ct_weights = [w + (a if each is None else each * a).astype(w.dtype) for w, a in zip(ct_weights, apart)]
        return ct_params, (ct_y, ct_labels, *ct_weights)

    return Layer(f"mean_over({loss.name})", loss.init, apply, fwd, bwd, counts=loss.counts)
