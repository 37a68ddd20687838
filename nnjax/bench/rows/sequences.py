"""The rows of attention, of losses over large vocabularies, and of recurrences."""

from collections.abc import Callable
from typing import Any

from ... import layers
from ...layer import Layer
from ..kernels.attention import attends
from ..kernels.options import OPTIONS, attends_with
from ..kernels.projection import projects
from .entry import Entry
from .making import backward, normal


def sequences() -> list[Entry]:
    def recurs(layer: Layer, batch: int, steps: int, n: int) -> Callable[..., Any]:
        # The output is a residual too: if it were not returned, it would count as temporary, 0.2 to 0.26 of jax.grad's alone.
        return backward(layer, normal(batch, steps, n), value=True)

    rnn, lstm, gru = layers.rnn(128, 128), layers.lstm(128, 128), layers.gru(128, 128)
    return [
        Entry("attention, S = 64, batch 8", attends(64, 8)),
        Entry("attention, S = 256, batch 8", attends(256, 8)),
        Entry("attention, S = 1024", attends(1024)),
        Entry("attention, S = 2048", attends(2048), 0.45, 0.10),
        Entry("attention, S = 4096", attends(4096, 1, 2), 0.45, 0.12),
        *(Entry(f"attention, {name}, S = 1024", attends_with(name, 1024)) for name in OPTIONS),
        Entry("linear_cross_entropy, V = 65, N = 2048", projects(2048, 65)),
        Entry("linear_cross_entropy, V = 32768, N = 2048", projects(2048, 32768), 0.92, 0.12),
        Entry("linear_cross_entropy, V = 50257, N = 512", projects(512, 50257)),
        *(
            Entry(f"tanh rnn, T = 800, batch {b}", recurs(rnn, b, 800, 128), t, 0.20)
            for b, t in ((4, 0.45), (16, 0.66), (64, 0.80))
        ),
        *(Entry(f"lstm, T = 128, batch {b}", recurs(lstm, b, 128, 128), t, 0.55) for b, t in ((16, 0.75), (64, 0.95))),
        Entry("gru, T = 128, batch 16", recurs(gru, 16, 128, 128)),
    ]


def kernels(platform: str) -> list[Entry]:
    attention = [
        Entry(f"attention, S = {s}, in kernels", attends(s, 1, heads, kernels_of=platform), 1.05, 0.02)
        for s, heads in ((1024, 4), (4096, 2))
    ]
    # Scores that are never kept are formed three times: five products, while jax.grad takes three.
    loss = projects(2048, 32768, kernel=True)
    return [*attention, Entry("linear_cross_entropy, V = 32768, N = 2048, in kernels", loss, 1.67, 0.02)]
