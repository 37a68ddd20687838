"""Models in Flax (linen), and their step."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax

from .steps import Run, cross_entropy, descent


def run(module: Any, x: Any, labels: Any) -> Run:
    """run() -> (params, value)."""
    params = module.init(jax.random.key(0), x)
    loss = lambda params, x, labels: cross_entropy(module.apply(params, x), labels)  # noqa: E731
    return descent(jax.value_and_grad(loss), params, x, labels)


def mlp(sizes: Sequence[int]) -> Any:
    """Dense layers with sigmoids between."""
    from flax import linen as nn

    layers: list[Any] = []
    for n in sizes[1:]:
        layers += [nn.Dense(n), nn.sigmoid]
    return nn.Sequential(layers[:-1])


def lenet(channels: tuple[int, int], hidden: int) -> Any:
    """Convolution 5x5, ReLU and max-pool 2x2 twice, then two dense layers.  x: (batch, 28, 28, 1)."""
    from flax import linen as nn

    c1, c2 = channels
    pool = partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2))
    return nn.Sequential([
        nn.Conv(c1, (5, 5), padding="VALID"), nn.relu, pool, nn.Conv(c2, (5, 5), padding="VALID"), nn.relu, pool,
        lambda y: y.reshape(len(y), -1), nn.Dense(hidden), nn.relu, nn.Dense(10),
    ])  # fmt: skip


def char_rnn(vocab: int, width: int) -> Any:
    """Embedding, LSTM, dense; of its two LSTM cells the one with all gates in one product."""
    from flax import linen as nn

    return nn.Sequential([nn.Embed(vocab, width), nn.RNN(nn.OptimizedLSTMCell(width)), nn.Dense(vocab)])


def gpt(vocab: int, context: int, layers: int, heads: int, width: int) -> Any:
    """GPT-2's architecture, without dropout, its embedding tied to the output. Attention as in Flax's newer nnx."""
    from flax import linen as nn

    attend, norm = partial(jax.nn.dot_product_attention, is_causal=True), partial(nn.LayerNorm, epsilon=1e-5)

    class Model(nn.Module):
        @nn.compact
        def __call__(self, ids):
            tokens = nn.Embed(vocab, width)
            h = tokens(ids) + self.param("positions", nn.initializers.normal(0.02), (context, width))[None, : ids.shape[1]]
            for _ in range(layers):
                h = h + nn.MultiHeadDotProductAttention(heads, attention_fn=attend)(norm()(h))
                h = h + nn.Dense(width)(nn.gelu(nn.Dense(4 * width)(norm()(h))))
            return tokens.attend(norm()(h))

    return Model()
