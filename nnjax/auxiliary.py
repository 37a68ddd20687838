"""Losses that arise inside a model, such as those of a mixture of experts, on their way to the loss at its end.

A layer with a loss of its own returns (y, own). In a model the values travel as pairs (x, sum so far): `start` makes the first
pair, `past` leads the sum past a layer without such a loss, `add` adds the loss of a layer that has one, and `to_loss` adds the
sum to the loss of the output. So they are part of the value, and `apply` stays the definition that `jax.grad` differentiates: a
backward that only put their gradient in would disagree with every value.

>>> mixture = nnjax.mixture_of_experts(4, 8, 3, 2, balance=0.01)
>>> first, last = nnjax.auxiliary.start(nnjax.dense(6, 4)), nnjax.auxiliary.past(nnjax.dense(4, 2))
>>> model = nnjax.serial(first, nnjax.auxiliary.add(mixture), last)
>>> f = jax.jit(nnjax.value_and_grad(model, nnjax.auxiliary.to_loss(nnjax.softmax_cross_entropy())))
>>> value, grads = f(model.init(jax.random.key(0)), jnp.ones((5, 6)), jnp.zeros(5, jnp.int32))
>>> grads[1].router.shape
(4, 3)
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from .errors import describe, expect_float
from .layer import Layer, Met, expect_layer
from .linear import wide


def _pair(who: str, what: str, x: Any) -> tuple[Any, Array]:
    if not isinstance(x, tuple) or len(x) != 2:
        raise TypeError(f"{who}: {what} must be a pair, (value, sum of losses), got {describe(x)}; begin with auxiliary.start.")
    expect_float(who, f"the sum in {what}", x[1])
    return x[0], jnp.asarray(x[1])


def start(layer: Layer) -> Layer[tuple[Any, Array]]:
    """x -> (layer(x), 0), the beginning of the sum: (), in float32 at least.  params: those of the layer.

    Backward: ct_x = Jᵀ ct_y of the first entry, as the second meets a constant.  Raises TypeError for what is no Layer.

    >>> y, a = nnjax.auxiliary.start(nnjax.tanh()).apply((), jnp.zeros(2))
    >>> y.tolist(), float(a)
    ([0.0, 0.0], 0.0)
    """
    expect_layer("auxiliary.start", layer)
    name = f"auxiliary.start({layer.name})"

    def begun(y):
        first = jax.tree.leaves(y)[0]
        return y, jnp.zeros_like(first, shape=(), dtype=wide(first))

    def apply(params, x, *, key=None):
        return begun(layer.apply(params, x, key=key))

    def fwd(params, x, *, key=None):
        y, residuals = layer.fwd(params, x, key=key)
        return begun(y), residuals

    def bwd(residuals, ct_y):
        return layer.bwd(residuals, _pair(name, "ct_y", ct_y)[0])

    def walk(params, x, key):
        params, y = yield Met("start", layer, params, x, key)
        return params, begun(y)

    return Layer(name, layer.init, apply, fwd, bwd, (layer,), walk, start)


def past(layer: Layer) -> Layer[tuple[Any, Array]]:
    """(x, a) -> (layer(x), a).  params: those of the layer.

    Backward: (ct_y, ct_a) -> (Jᵀ ct_y, ct_a).  Raises TypeError for what is no Layer.

    >>> y, a = nnjax.auxiliary.past(nnjax.tanh()).apply((), (jnp.zeros(2), jnp.float32(3)))
    >>> y.tolist(), float(a)
    ([0.0, 0.0], 3.0)
    """
    expect_layer("auxiliary.past", layer)
    name = f"auxiliary.past({layer.name})"

    def apply(params, x, *, key=None):
        x, a = _pair(name, "x", x)
        return layer.apply(params, x, key=key), a

    def fwd(params, x, *, key=None):
        x, a = _pair(name, "x", x)
        y, residuals = layer.fwd(params, x, key=key)
        return (y, a), residuals

    def bwd(residuals, ct_y):
        ct_y, ct_a = _pair(name, "ct_y", ct_y)
        ct_params, ct_x = layer.bwd(residuals, ct_y)
        return ct_params, (ct_x, ct_a)

    def walk(params, x, key):
        x, a = _pair(name, "x", x)
        params, y = yield Met("past", layer, params, x, key)
        return params, (y, a)

    return Layer(name, layer.init, apply, fwd, bwd, (layer,), walk, past)


def add(layer: Layer) -> Layer[tuple[Any, Array]]:
    """(x, a) -> (y, a + own), where (y, own) = layer(x).  params: those of the layer.

    Backward: the transpose of a sum is a copy, so ct_a goes to both summands.  Raises TypeError for what is no Layer, and for
    a layer that returns no pair.

    >>> layer = nnjax.auxiliary.add(nnjax.mixture_of_experts(4, 8, 3, 2, balance=1.0))
    >>> y, a = layer.apply(layer.init(jax.random.key(0)), (jnp.ones((2, 4)), jnp.float32(0)))
    >>> 0.9 < float(a) < 3
    True
    """
    expect_layer("auxiliary.add", layer)
    name = f"auxiliary.add({layer.name})"

    def added(out, a):
        if not isinstance(out, tuple) or len(out) != 2:
            raise TypeError(f"{name}: the layer must return (y, its loss), got {describe(out)}; use auxiliary.past for others.")
        y, own = out
        return y, a + own.astype(a.dtype)

    def apply(params, x, *, key=None):
        x, a = _pair(name, "x", x)
        return added(layer.apply(params, x, key=key), a)

    def fwd(params, x, *, key=None):
        x, a = _pair(name, "x", x)
        out, residuals = layer.fwd(params, x, key=key)
        return added(out, a), (residuals, jnp.zeros_like(out[1], shape=(0,)))

    def bwd(residuals, ct_y):
        residuals, like = residuals
        ct_y, ct_a = _pair(name, "ct_y", ct_y)
        ct_params, ct_x = layer.bwd(residuals, (ct_y, ct_a.astype(like.dtype)))
        return ct_params, (ct_x, ct_a)

    def walk(params, x, key):
        x, a = _pair(name, "x", x)
        params, out = yield Met("add", layer, params, x, key)
        return params, added(out, a)

    return Layer(name, layer.init, apply, fwd, bwd, (layer,), walk, add)


def to_loss(loss: Layer[Array]) -> Layer[Array]:
    """value = loss(y, labels, ...) + a, for x = ((y, a), labels, ...).

    Backward: ct_value goes to both summands.  Raises TypeError for what is no Layer, and for an output that is no pair.

    >>> loss = nnjax.auxiliary.to_loss(nnjax.mean_squared_error())
    >>> float(loss.apply((), ((jnp.zeros(2), jnp.float32(3)), jnp.zeros(2))))
    3.0
    """
    expect_layer("auxiliary.to_loss", loss)
    name = f"{loss.name} with auxiliary losses"

    def apart(x):
        if not isinstance(x, tuple) or len(x) < 2:
            raise TypeError(f"{name}: x must be ((y, sum of losses), labels, ...), got {describe(x)}.")
        y, a = _pair(name, "the output", x[0])
        return (y, *x[1:]), a

    def apply(params, x, *, key=None):
        x, a = apart(x)
        value = loss.apply(params, x, key=key)
        return value + a.astype(value.dtype)

    def fwd(params, x, *, key=None):
        x, a = apart(x)
        value, residuals = loss.fwd(params, x, key=key)
        return value + a.astype(value.dtype), (residuals, jnp.zeros_like(a, shape=(0,)))

    def bwd(residuals, ct_value):
        residuals, like = residuals
        ct_params, (ct_y, *ct_rest) = loss.bwd(residuals, ct_value)
        return ct_params, ((ct_y, jnp.asarray(ct_value).astype(like.dtype)), *ct_rest)

    def walk(params, x, key):
        x, a = apart(x)
        params, value = yield Met("loss", loss, params, x, key)
        return params, value + a.astype(value.dtype)

    return Layer(name, loss.init, apply, fwd, bwd, (loss,), walk, to_loss, counts=loss.counts)
