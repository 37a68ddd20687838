"""Direct feedback: the output error, sent straight to every hidden layer through a fixed random matrix."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .errors import expect_arrays, expect_key
from .feedback import random
from .grad import ValueAndGrad, counting, expect_model_and_loss, loss_input
from .layer import Layer, Met, is_chain, walked
from .linear import fold, fold_t


class Step(NamedTuple):
    """What a layer met, and y and residuals of its fwd. For a chain, `inside` holds the steps of its parts, not residuals."""

    met: Met
    y: Any
    residuals: Any = None
    inside: tuple["Step", ...] | None = None


def direct_value_and_grad(model: Layer, loss: Layer, key: jax.Array) -> ValueAndGrad:
    """f(params, x, labels, *, weights=None, key=None) -> (value, substitute for the gradient): direct feedback alignment.

    ct_h_l = e B_l instead of ct_h_l = J_l+1ᵀ ... J_Lᵀ e, where e = dC/dy is the output error, h_l the input of the l-th layer
    with weights, and B_l a fixed matrix drawn from `key` (Nøkland 2016, eq. 7). From h_l back to the previous layer with
    weights, through activations and pools, the error passes by the transpose. The last layer's gradient is exact.
    model: a serial, such as mlp or lenet, of layers that treat each example separately. The signature is that of
    `value_and_grad`.  Raises ValueError if the model is not a serial or has no layer with weights, TypeError if key is not a
    key.

    >>> model, loss = nnjax.mlp([4, 8, 3]), nnjax.softmax_cross_entropy()
    >>> f = nnjax.direct_value_and_grad(model, loss, jax.random.key(0))
    >>> value, grads = f(model.init(jax.random.key(0)), jnp.ones((5, 4)), jnp.zeros(5, jnp.int32))
    >>> grads[0].w.shape
    (4, 8)
    """
    expect_model_and_loss("direct_value_and_grad", model, loss)
    expect_key("direct_value_and_grad", key)
    if model.walk is None:
        raise _no_serial(model)
    feedback_key = key

    def f(params, x, labels, *, weights=None, key=None):
        for what, tree in (("params", params), ("x", x), ("labels", labels), ("weights", weights)):
            expect_arrays("direct_value_and_grad", what, tree)
        if key is not None:
            expect_key("direct_value_and_grad", key)
        whole = _step(Met("", model, params, x, key))
        if whole.inside is None:
            raise _no_serial(model)
        steps = list(_leaves(whole))
        heard = [i for i, step in enumerate(steps) if jax.tree.leaves(step.met.params)]  # the layers with weights
        if not heard:
            raise ValueError("direct_value_and_grad: the model has no layer with weights, so there is nothing to train.")
        value, loss_residuals = loss.fwd((), loss_input(whole.y, labels, weights))
        _, (error, *_) = loss.bwd(loss_residuals, jnp.ones_like(value))
        keys = dict(zip(heard, jax.random.split(feedback_key, len(heard))))
        ct, cts = error, [None] * len(steps)
        for i in reversed(range(len(steps))):
            cts[i], ct = steps[i].met.layer.bwd(steps[i].residuals, ct)
            if i in keys:  # what comes from the output replaces what this layer would send back
                ct = _sent(error, steps[i].met.x, keys[i])
        return value, _joined(whole, iter(cts))

    return counting(f, loss)


def _no_serial(model: Layer) -> ValueError:
    return ValueError(
        f"direct_value_and_grad: the model must be a serial, so that an error can enter between its parts, got {model.name}; "
        "compose it by serial, mlp or lenet."
    )


def _sent(error, h, key):
    """e B, of the shape of h: (batch, ...).  error: (batch, outputs)."""
    like = jnp.zeros_like(error, shape=(math.prod(h.shape[1:]), error.shape[-1]))
    return fold_t(fold(error) @ random(key)(like), h.shape)


def _step(at: Met) -> Step:
    """Run a layer's fwd; of a chain, the fwd of its parts, one by one."""
    if not is_chain(at.layer, at.params, at.x, at.key):
        return Step(at, *at.layer.fwd(at.params, at.x, key=at.key))
    inside = []

    def visit(part):
        inside.append(_step(part))
        return part.params, inside[-1].y

    _, y = walked(at.layer, at.params, at.x, at.key, visit)
    return Step(at, y, inside=tuple(inside))


def _leaves(step: Step):
    if step.inside is None:
        yield step
    else:
        for part in step.inside:
            yield from _leaves(part)


def _joined(step: Step, cts) -> Any:
    """The cotangents of the leaves, put together as the parameters are."""
    if step.inside is None:
        return next(cts)
    parts = iter(step.inside)

    def visit(_):
        part = next(parts)
        return _joined(part, cts), part.y

    return walked(step.met.layer, step.met.params, step.met.x, step.met.key, visit)[0]
