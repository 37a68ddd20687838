"""The one table of layers, losses, models and inputs that check, bench and tests run over."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import layers, losses
from .layer import Layer, parallel, residual, scan_layers, serial
from .models import mlp

LEADS = ((), (0,), (1,), (7,), (2, 3))  # no leading axis, an empty batch, batch 1, batch 7, two leading axes


class Case(NamedTuple):
    """A layer and its inputs: inputs(rng, lead) -> x. keyed: whether it draws random numbers."""

    name: str
    layer: Layer
    inputs: Callable[[np.random.Generator, tuple[int, ...]], Any]
    keyed: bool = False

    def make(self, seed: int, lead: tuple[int, ...] = (7,)) -> tuple[Any, Any, Any]:
        """(params, x, key) of this seed."""
        params = self.layer.init(jax.random.key(seed))
        x = self.inputs(np.random.default_rng(seed), lead)
        return params, x, jax.random.key(seed + 1) if self.keyed else None


def hard(rng: np.random.Generator, shape: tuple[int, ...]) -> jax.Array:
    """Normal numbers, among them zeros, ties, and a few that saturate everything."""
    x = rng.standard_normal(shape).astype(np.float32)
    chance = rng.random(shape)
    x = np.where(chance < 0.1, np.float32(0), x)
    x = np.where((chance > 0.1) & (chance < 0.2), np.float32(0.5), x)
    x = np.where(chance > 0.95, 30 * x, x)
    return jnp.asarray(x.astype(np.float32))


def _features(n: int) -> Callable:
    return lambda rng, lead: hard(rng, (*lead, n))


def _targets(n: int, weighted: bool) -> Callable:
    def inputs(rng, lead):
        y, t = hard(rng, (*lead, n)), jnp.asarray(rng.integers(0, 3, (*lead, n)).astype(np.float32) / 2)
        return (y, t, _weights(rng, lead)) if weighted else (y, t)

    return inputs


def _classes(n: int, weighted: bool) -> Callable:
    def inputs(rng, lead):
        y, labels = hard(rng, (*lead, n)), jnp.asarray(rng.integers(0, n, lead).astype(np.int32))
        return (y, labels, _weights(rng, lead)) if weighted else (y, labels)

    return inputs


def _weights(rng, lead):
    return jnp.asarray(rng.integers(0, 3, lead).astype(np.float32))


def cases() -> tuple[Case, ...]:
    """Every layer, loss and model."""
    activations = [
        layers.sigmoid(), layers.tanh(), layers.relu(), layers.leaky_relu(0.1), layers.elu(), layers.gelu(),
        layers.gelu(approximate=True), layers.silu(), layers.softplus(), layers.softmax(), layers.log_softmax(),
    ]  # fmt: skip
    block = serial(layers.dense(5, 5), layers.tanh(), layers.dropout(0.25))
    targets = (losses.mean_squared_error(), losses.binary_cross_entropy())
    classes = (losses.softmax_cross_entropy(), losses.softmax_cross_entropy(label_smoothing=0.1))
    table = [
        Case("dense", layers.dense(5, 3), _features(5)),
        Case("dense without bias", layers.dense(3, 4, bias=False), _features(3)),
        *(Case(a.name, a, _features(6)) for a in activations),
        Case("dropout", layers.dropout(0.5), _features(6), keyed=True),
        Case("dropout without a key", layers.dropout(0.5), _features(6)),
    ]
    for weighted, suffix in ((False, ""), (True, ", weighted")):
        table += [Case(loss.name + suffix, loss, _targets(4, weighted)) for loss in targets]
        table += [
            Case(loss.name + smooth + suffix, loss, _classes(5, weighted)) for loss, smooth in zip(classes, ("", ", smoothed"))
        ]
    table += [
        Case("residual", residual(serial(layers.dense(5, 5), layers.gelu())), _features(5)),
        Case("parallel", parallel(layers.dense(5, 3), layers.tanh(), layers.dense(5, 2)), _features(5)),
        Case("scan_layers", scan_layers(block, 3), _features(5), keyed=True),
        Case("scan_layers, remat", scan_layers(block, 3, remat=True), _features(5), keyed=True),
        Case("mlp", mlp([6, 5, 4, 3], layers.tanh()), _features(6)),
    ]
    return tuple(table)
