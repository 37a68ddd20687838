"""Direct feedback: the error of the output, sent straight to every hidden layer through a fixed random matrix."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from .errors import expect_key
from .feedback import random
from .grad import ValueAndGrad, expect_model_and_loss, loss_input
from .layer import Layer, split_key
from .linear import fold, fold_t

SERIAL = ("serial", "mlp", "lenet")


def direct_value_and_grad(model: Layer, loss: Layer, key: jax.Array) -> ValueAndGrad:
    """f(params, x, labels, *, weights=None, key=None) -> (value, what stands for the gradient): direct feedback alignment.

    ct_h_l = e B_l in the place of ct_h_l = J_l+1ᵀ ... J_Lᵀ e, where e = dC/dy is the error of the output, h_l what enters the
    l-th layer with weights, and B_l a fixed matrix drawn from `key` (Nøkland 2016, eq. 7). From there to the layer with
    weights before, through activations and pools, the error goes back by the transpose. The last layer's gradient is right.
    model: a serial, such as mlp or lenet, of layers that treat examples apart.  Has the signature of `value_and_grad`.
    Raises ValueError where the model is no serial or has no layer with weights, TypeError where key is no key.
    """
    expect_model_and_loss("direct_value_and_grad", model, loss)
    expect_key("direct_value_and_grad", key)
    if model.name not in SERIAL:
        raise ValueError(
            f"direct_value_and_grad: the model must be a serial, between whose parts an error can enter, got {model.name}; "
            "compose it by serial, mlp or lenet."
        )
    feedback_key = key

    def f(params, x, labels, *, weights=None, key=None):
        steps = list(_unfolded(model, params, key))
        heard = [i for i, (_, p, _) in enumerate(steps) if jax.tree.leaves(p)]  # the layers with weights
        if not heard:
            raise ValueError("direct_value_and_grad: the model has no layer with weights, so there is nothing to train.")
        entering, kept = [], []
        for layer, p, k in steps:
            entering.append(x)
            x, residuals = layer.fwd(p, x, key=k)
            kept.append(residuals)
        value, loss_residuals = loss.fwd((), loss_input(x, labels, weights))
        _, (error, *_) = loss.bwd(loss_residuals, jnp.ones_like(value))
        keys = dict(zip(heard, jax.random.split(feedback_key, len(heard))))
        ct, cts = error, [None] * len(steps)
        for i in reversed(range(len(steps))):
            cts[i], ct = steps[i][0].bwd(kept[i], ct)
            if i in keys:  # what this layer would send back is not used: its place takes what comes from the output
                ct = _sent(error, entering[i], keys[i])
        return value, _folded(model, iter(cts))

    return f


def _sent(error, h, key):
    """e B, of the shape of h: (batch, ...).  error: (batch, outputs)."""
    like = jnp.zeros_like(error, shape=(math.prod(h.shape[1:]), error.shape[-1]))
    return fold_t(fold(error) @ random(key)(like), h.shape)


def _unfolded(layer: Layer, params: Any, key):
    """(layer, params, key) of each part, in order, serials within serials opened."""
    if layer.name in SERIAL:
        for part, p, k in zip(layer.parts, params, split_key(key, len(layer.parts))):
            yield from _unfolded(part, p, k)
    else:
        yield layer, params, key


def _folded(layer: Layer, cts) -> Any:
    """The cotangents of the parts, as the parameters stand."""
    return tuple(_folded(part, cts) for part in layer.parts) if layer.name in SERIAL else next(cts)
