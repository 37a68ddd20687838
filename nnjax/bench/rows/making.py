"""How the rows are made: a layer's backward, a step of a model, several in a scan, each beside its references."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ...cases import quickly
from ...grad import accumulate, reference_value_and_grad, value_and_grad
from ...layer import Layer
from .. import peers


def keys(n: int) -> Any:
    """n keys, the same in every run."""
    return jax.random.split(jax.random.key(0), n)


def _pulled(apply: Callable[..., Any], value: bool) -> Callable[..., Any]:
    def run(params, x, ct_y):
        if jnp.issubdtype(jax.tree.leaves(x)[0].dtype, jnp.integer):
            y, pull = jax.vjp(lambda p: apply(p, x), params)
        else:
            y, pull = jax.vjp(apply, params, x)
        return (y, pull(ct_y)) if value else pull(ct_y)

    return run


def backward(
    layer: Layer, inputs: Callable[[Any], Any], others: dict[str, Callable[..., Any]] | None = None, value: bool = False
) -> Callable[..., Any]:
    """A layer's cotangents for a random one, forward and backward; with `value` its output is returned as well."""

    def make():
        k = keys(3)
        params, x = quickly(layer.init, k[0]), inputs(k[1])
        y = jax.eval_shape(layer.apply, params, x)
        ct_y = jax.tree.map(lambda v: normal(*v.shape, dtype=v.dtype)(k[2]), y)

        def hand(params, x, ct_y):
            y, residuals = layer.fwd(params, x)
            return (y, layer.bwd(residuals, ct_y)) if value else layer.bwd(residuals, ct_y)

        definitions = {"jax.grad": layer.apply, "checkpoint": jax.checkpoint(layer.apply), **(others or {})}
        references = {name: _pulled(apply, value) for name, apply in definitions.items()}
        return hand, references, (params, x, ct_y)

    return make


def _remat(model: Layer) -> Layer:
    return model._replace(apply=jax.checkpoint(model.apply))


def step(
    model: Layer, loss: Layer, batch: Callable[..., Any], plain: Layer | None = None, microbatches: int = 1
) -> Callable[..., Any]:
    """A model's value and gradient. plain: a model of the same parameters whose definition is fastest under jax.grad."""

    def make():
        k = keys(3)
        args = (quickly(model.init, k[0]), *batch(k[1], k[2]))
        hand = value_and_grad(model, loss)
        if microbatches > 1:
            hand = accumulate(hand, microbatches)
        references = {"jax.grad": reference_value_and_grad(plain or model, loss)}
        references["checkpoint"] = reference_value_and_grad(_remat(plain or model), loss)
        if microbatches > 1:
            references["microbatches"] = accumulate(reference_value_and_grad(plain or model, loss), microbatches)
        return hand, references, args

    return make


def scanned(make: Callable[..., Any], steps: int) -> Callable[..., Any]:
    """`steps` steps of gradient descent on the same batch inside one lax.scan."""

    def several(f):
        def run(params, *batch):
            def one(params, _):
                value, grads = f(params, *batch)
                return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), value

            return jax.lax.scan(one, params, None, steps)

        return run

    def make_scanned():
        hand, references, args = make()
        return several(hand), {name: several(f) for name, f in references.items()}, args

    return make_scanned


def beside(make: Callable[..., Any], builders: Callable[..., Any]) -> Callable[[float], dict[str, float]]:
    """Compare our step with optax.sgd with the libraries that `builders(x, labels)` makes."""

    def run(budget: float) -> dict[str, float]:
        hand, _, (params, x, labels) = make()
        ours = peers.descent(hand, params, x, labels)
        return peers.ratios(ours, builders(x, labels), budget)

    return run


def normal(*shape: int, dtype: Any = jnp.float32) -> Callable[[Any], Any]:
    return lambda key: quickly(lambda key: jax.random.normal(key, shape, dtype), key)


def ids(n: int, *shape: int) -> Callable[[Any], Any]:
    return lambda key: quickly(lambda key: jax.random.randint(key, shape, 0, n, jnp.int32), key)


def batched(x: Callable[..., Any], labels: Callable[..., Any]) -> Callable[..., Any]:
    return lambda k, l: (x(k), labels(l))
