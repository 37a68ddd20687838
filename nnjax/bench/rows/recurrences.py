"""The rows of linear recurrences, and of recurrent layers that run both ways or over sequences of several lengths."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ... import layers
from ...layer import Layer
from .entry import Entry
from .making import backward, normal


def _decaying(batch: int, time: int, n: int) -> Callable[[Any], Any]:
    """(a, b): a from 0 to 1, mostly near 1."""

    def inputs(key):
        a, b = (normal(batch, time, n)(k) for k in jax.random.split(key))
        return jax.nn.sigmoid(a + 2), b

    return inputs


def _by_pairs(params: Any, x: Any, *, key: Any = None) -> Array:
    """What one would write for an accelerator: `jax.lax.associative_scan`."""

    def joined(before, after):
        (a1, b1), (a2, b2) = before, after
        return a2 * a1, a2 * b1 + b2

    return lax.associative_scan(joined, x, axis=-2)[1]


def _of_lengths(layer: Layer, batch: int, time: int) -> Layer:
    """The layer of sequences from a quarter of the time to all of it, as a map of x alone."""
    lengths = jnp.linspace(time // 4, time, batch).astype(jnp.int32)
    return layer._replace(
        apply=lambda params, x, *, key=None: layer.apply(params, (x, lengths)),
        fwd=lambda params, x, *, key=None: layer.fwd(params, (x, lengths)),
        bwd=lambda residuals, ct_y: (lambda ct_params, ct_x: (ct_params, ct_x[0]))(*layer.bwd(residuals, ct_y)),
    )


def recurrences() -> list[Entry]:
    def recurs(layer: Layer, batch: int, time: int, n: int) -> Callable[..., Any]:
        return backward(layer, normal(batch, time, n), value=True)  # the output is a residual too

    def linear(batch: int, time: int, n: int) -> Callable[..., Any]:
        return backward(layers.linear_recurrence(), _decaying(batch, time, n), {"associative_scan": _by_pairs}, value=True)

    both = layers.lstm(128, 128, bidirectional=True)
    several = _of_lengths(layers.lstm(128, 128, lengths=True), 16, 128)
    return [
        Entry("linear_recurrence 128, T = 4096, batch 1", linear(1, 4096, 128)),
        Entry("linear_recurrence 256, T = 512, batch 16", linear(16, 512, 256)),
        Entry("rg_lru 128, T = 1024, batch 4", recurs(layers.rg_lru(128, 128), 4, 1024, 128)),
        Entry("lstm both ways, T = 128, batch 16", recurs(both, 16, 128, 128)),
        Entry("lstm of several lengths, T = 128, batch 16", recurs(several, 16, 128, 128)),
    ]  # fmt: skip
