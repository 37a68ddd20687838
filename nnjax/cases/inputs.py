"""Inputs that layers and losses go wrong at: zeros, ties, saturation, repeated ids, weights of 0 over what is no number."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import layers
from ..linear import broadcast


def hard(rng: np.random.Generator, shape: tuple[int, ...]) -> jax.Array:
    """Normal numbers, among them zeros, ties, and a few that saturate everything."""
    x = rng.standard_normal(shape).astype(np.float32)
    chance = rng.random(shape)
    x = np.where(chance < 0.1, np.float32(0), x)
    x = np.where((chance > 0.1) & (chance < 0.2), np.float32(0.5), x)
    x = np.where(chance > 0.95, 30 * x, x)
    return jnp.asarray(x.astype(np.float32))


def features(n: int) -> Callable[..., Any]:
    return lambda rng, lead: hard(rng, (*lead, n))


def example_weights(rng, lead):
    """Weights, some of them 0 (always the first of several), whose sum over a batch is too large for float16."""
    weights = 16384 * rng.integers(0, 3, lead).astype(np.float32)
    if weights.size > 1:
        weights.flat[0] = 0
    return jnp.asarray(weights)


def unseen(x, weights, value):
    """x with this value wherever the weight is 0."""
    return jnp.where(broadcast((weights == 0)[..., None], x.shape), jnp.full_like(x, value), x)


def steps(*shape: int) -> Callable[..., Any]:
    return lambda rng, lead: hard(rng, (*lead, *shape))


def ids(vocab: int, *shape: int) -> Callable[..., Any]:
    return lambda rng, lead: jnp.asarray(rng.integers(0, vocab, (*lead, *shape)).astype(np.int32))


def with_state(steps: int, n_in: int, n_hidden: int, cell: bool = False) -> Callable[..., Any]:
    def inputs(rng, lead):
        h, c = (jnp.asarray(rng.standard_normal((*lead, n_hidden)).astype(np.float32)) for _ in range(2))
        return hard(rng, (*lead, steps, n_in)), layers.LSTMState(h, c) if cell else h

    return inputs


def positions(s: int, n: int, masked: bool = False) -> Callable[..., Any]:
    def inputs(rng, lead):
        x = jnp.asarray(rng.standard_normal((*lead, s, n)).astype(np.float32))  # saturated scores would prove nothing
        return (x, jnp.asarray(rng.random((*lead, s)) < 0.4)) if masked else x

    return inputs


def heads(s: int) -> Callable[..., Any]:
    def inputs(rng, lead):
        qkv = (jnp.asarray(rng.standard_normal((*lead, s, 2)).astype(np.float32)) for _ in range(3))
        return *qkv, jnp.asarray(rng.random((*lead, s)) < 0.6)

    return inputs
