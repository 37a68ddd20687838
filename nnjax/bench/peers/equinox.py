"""Models in Equinox, which take one example, and their step."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .steps import Run, cross_entropy, descent


def run(model: Any, x: Any, labels: Any) -> Run:
    """run() -> (params, value)."""
    import equinox as eqx

    params, static = eqx.partition(model, eqx.is_array)
    loss = lambda params, x, labels: cross_entropy(jax.vmap(eqx.combine(params, static))(x), labels)  # noqa: E731
    return descent(jax.value_and_grad(loss), params, x, labels)


def mlp(sizes: Sequence[int]) -> Any:
    """Dense layers with sigmoids between."""
    from equinox import nn

    layers: list[Any] = []
    for a, b in zip(sizes, sizes[1:]):
        layers += [nn.Linear(a, b, key=jax.random.key(a)), nn.Lambda(jax.nn.sigmoid)]
    return nn.Sequential(layers[:-1])


def lenet(channels: tuple[int, int], hidden: int) -> Any:
    """Convolution 5x5, ReLU and max-pool 2x2 twice, then two dense layers.  x: (1, 28, 28)."""
    from equinox import nn

    c1, c2 = channels
    keys = jax.random.split(jax.random.key(0), 4)
    relu, pool = nn.Lambda(jax.nn.relu), nn.MaxPool2d(2, 2)
    return nn.Sequential([
        nn.Conv2d(1, c1, 5, key=keys[0]), relu, pool, nn.Conv2d(c1, c2, 5, key=keys[1]), relu, pool,
        nn.Lambda(jnp.ravel), nn.Linear(16 * c2, hidden, key=keys[2]), relu, nn.Linear(hidden, 10, key=keys[3]),
    ])  # fmt: skip


def char_rnn(vocab: int, width: int) -> Any:
    """Embedding, LSTM cell in a scan, dense."""
    import equinox as eqx
    from equinox import nn

    class Model(eqx.Module):
        tokens: Any
        cell: Any
        head: Any

        def __init__(self, key):
            keys = jax.random.split(key, 3)
            self.tokens, self.cell = nn.Embedding(vocab, width, key=keys[0]), nn.LSTMCell(width, width, key=keys[1])
            self.head = nn.Linear(width, vocab, key=keys[2])

        def __call__(self, ids):
            def step(state, x):
                state = self.cell(x, state)
                return state, state[0]

            zero = jnp.zeros(width, self.head.weight.dtype)
            return jax.vmap(self.head)(jax.lax.scan(step, (zero, zero), jax.vmap(self.tokens)(ids))[1])

    return Model(jax.random.key(0))


def gpt(vocab: int, context: int, layers: int, heads: int, width: int) -> Any:
    """GPT-2's architecture, without dropout, its embedding tied to the output."""
    import equinox as eqx
    from equinox import nn

    class Block(eqx.Module):
        first: Any
        attention: Any
        second: Any
        mlp: Any

        def __init__(self, key):
            keys = jax.random.split(key, 3)
            biases = {f"use_{name}_bias": True for name in ("query", "key", "value", "output")}
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.attention = nn.MultiheadAttention(heads, width, **biases, key=keys[0])
            self.mlp = nn.Sequential([
                nn.Linear(width, 4 * width, key=keys[1]), nn.Lambda(jax.nn.gelu), nn.Linear(4 * width, width, key=keys[2]),
            ])  # fmt: skip

        def __call__(self, h, mask):
            x = jax.vmap(self.first)(h)
            h = h + self.attention(x, x, x, mask)
            return h + jax.vmap(lambda row: self.mlp(self.second(row)))(h)

    class Model(eqx.Module):
        tokens: Any
        positions: Any
        blocks: Any
        last: Any

        def __init__(self, key):
            keys = jax.random.split(key, layers + 2)
            self.tokens, self.positions = nn.Embedding(vocab, width, key=keys[0]), jax.random.normal(keys[1], (context, width))
            self.blocks, self.last = [Block(k) for k in keys[2:]], nn.LayerNorm(width)

        def __call__(self, ids):
            mask = jnp.tril(jnp.ones((len(ids), len(ids)), bool))
            h = jax.vmap(self.tokens)(ids) + self.positions[: len(ids)]
            for block in self.blocks:
                h = block(h, mask)
            return jax.vmap(self.last)(h) @ self.tokens.weight.T

    return Model(jax.random.key(0))
