"""Each model in every library: builders of a step, by the name of the peer."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from . import equinox, flax, pytorch
from .steps import Builder


def mlp(sizes: Sequence[int], x: Any, labels: Any) -> dict[str, Builder]:
    """Dense layers with sigmoids between."""
    return _builders(lambda library: library.mlp(sizes), x, labels)


def lenet(x: Any, labels: Any, channels: tuple[int, int], hidden: int) -> dict[str, Builder]:
    """Convolution 5x5, ReLU and max-pool 2x2 twice, then two dense layers.  x: (batch, 28, 28, 1)."""
    return _builders(lambda library: library.lenet(channels, hidden), x, labels, jnp.moveaxis(x, -1, 1))


def char_rnn(vocab: int, width: int, x: Any, labels: Any) -> dict[str, Builder]:
    """Embedding, LSTM and dense.  x: integers (batch, time)."""
    return _builders(lambda library: library.char_rnn(vocab, width), x, labels)


def gpt(vocab: int, context: int, layers: int, heads: int, width: int, x: Any, labels: Any) -> dict[str, Builder]:
    """GPT-2's architecture without dropout, its embedding tied to the output, with the library's causal attention."""
    return _builders(lambda library: library.gpt(vocab, context, layers, heads, width), x, labels)


def _builders(make: Callable[[Any], Any], x: Any, labels: Any, channels_first: Any = None) -> dict[str, Builder]:
    """channels_first: x for the libraries that take images with channels first."""
    turned = x if channels_first is None else channels_first
    return {
        "torch": lambda: pytorch.run(make(pytorch), turned, labels),
        "torch.compile": lambda: pytorch.compiled(make(pytorch), turned, labels),
        "flax": lambda: flax.run(make(flax), x, labels),
        "equinox": lambda: equinox.run(make(equinox), turned, labels),
    }
