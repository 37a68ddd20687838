"""The cases of recurrences."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import layers
from .case import Case
from .inputs import hard, steps, with_state
from .variants import jittered


def _states(rng, lead, n: int, cell: bool, both: bool) -> Any:
    """A state, or a pair of them."""

    def one() -> Any:
        h, c = (jnp.asarray(rng.standard_normal((*lead, n)).astype(np.float32)) for _ in range(2))
        return layers.LSTMState(h, c) if cell else h

    return (one(), one()) if both else one()


def padded(time: int, n_in: int, state: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """(x, lengths) or (x, state, lengths), lengths from 0 to time, with NaN in the padding.  state(rng, lead): the state."""

    def inputs(rng, lead):
        lengths = rng.integers(0, time + 1, lead)
        if lengths.size > 1:
            lengths.flat[:2] = 0, time
        x = np.array(rng.standard_normal((*lead, time, n_in)), np.float32)  # saturated gates would prove nothing
        x[np.arange(time) >= lengths[..., None]] = np.nan
        start = () if state is None else (state(rng, lead),)
        return jnp.asarray(x), *start, jnp.asarray(lengths.astype(np.int32))

    return inputs


def decays(time: int, n: int, state: bool = True) -> Callable[..., Any]:
    """(a, b) or (a, b, h), with an a of 0, some near 0 and some near 1."""

    def inputs(rng, lead):
        a = 1 / (1 + np.exp(-4 * rng.standard_normal((*lead, time, n))))
        a = np.where(rng.random(a.shape) < 0.1, 0, a).astype(np.float32)
        h = (jnp.asarray(rng.standard_normal((*lead, n)).astype(np.float32)),) if state else ()
        return jnp.asarray(a), hard(rng, a.shape), *h

    return inputs


def recurrences() -> list[Case]:
    """Recurrent layers, their options, and the linear recurrence."""
    table = []
    for make, cell in ((layers.rnn, False), (layers.gru, False), (layers.lstm, True)):
        name = make.__name__
        table += [
            Case(name, jittered(make(3, 4)), steps(3, 3)),
            Case(f"{name}, carry", jittered(make(3, 2, carry=True)), with_state(2, 3, 2, cell)),
        ]
    both = layers.lstm(3, 2, bidirectional=True, carry=True, lengths=True)
    deep = layers.gru(3, 2, layers=2, dropout=0.25, lengths=True)
    cut = layers.lstm(3, 2, carry=True, lengths=True, truncate=2)
    gated = layers.rg_lru(2, 3, bidirectional=True, carry=True, lengths=True)
    return [
        *table,
        Case("rnn, rectified, truncated", jittered(layers.rnn(3, 2, activation="relu", truncate=2)), steps(5, 3)),
        Case("gru, two layers, dropping, lengths", jittered(deep), padded(3, 3), keyed=True),
        Case("lstm, both ways, lengths", jittered(both), padded(3, 3, lambda rng, lead: _states(rng, lead, 2, True, True))),
        Case("lstm, truncated, lengths", jittered(cut), padded(5, 3, lambda rng, lead: _states(rng, lead, 2, True, False))),
        Case("rg_lru", jittered(layers.rg_lru(3, 4)), steps(4, 3)),
        Case("rg_lru, both ways, lengths", jittered(gated), padded(3, 2, lambda rng, lead: _states(rng, lead, 3, False, True))),
        Case("linear_recurrence", layers.linear_recurrence(), decays(5, 2)),
        Case("linear_recurrence, from the end", layers.linear_recurrence(reverse=True), decays(4, 3, state=False)),
    ]
