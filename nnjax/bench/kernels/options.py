"""Attention with one option each for the bench: the hand-written one, the plain definition, and jax.nn's where it has it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ... import ops
from ...cases import quickly

Arrays = dict[str, Any]


class Option(NamedTuple):
    """arrays(key, batch, s, heads) and numbers: what it takes, by the names of `ops.attention`; own: whether jax.nn takes it.

    scored(scores, arrays) -> scores; hidden(s, arrays) -> bool, 4-D: what is not seen; dropped(weights, arrays) -> weights.
    """

    arrays: Callable[..., Arrays] = lambda key, batch, s, heads: {}
    numbers: dict[str, Any] = {}  # noqa: RUF012  (never written to)
    scored: Callable[[Any, Arrays], Any] = lambda scores, arrays: scores
    hidden: Callable[[int, Arrays], Any] = lambda s, arrays: jnp.zeros((1, 1, s, s), bool)
    dropped: Callable[[Any, Arrays], Any] = lambda weights, arrays: weights
    own: bool = False


def _bias(key, batch, s, heads):
    return {"bias": quickly(lambda key: jax.random.normal(key, (1, heads, s, s)), key)}


def _segments(key, batch, s, heads):
    return {"segment_ids": jnp.sort(quickly(lambda key: jax.random.randint(key, (batch, s), 0, 4, jnp.int32), key))}


def _of_others(s, arrays):
    ids = arrays["segment_ids"]
    return (ids[:, :, None] != ids[:, None, :])[:, None]


def _farther(scores, arrays):
    places = jnp.arange(scores.shape[-1], dtype=jnp.float32)
    distance = jnp.abs(places[:, None] - places[None, :])[None, None]
    return scores - jnp.broadcast_to(arrays["alibi_slopes"][None, :, None, None] * distance, scores.shape)


def _too_far(s, arrays):
    places = jnp.arange(s, dtype=jnp.int32)
    return (places[:, None] - places[None, :] > 127)[None, None]


def _dropped(weights, arrays):
    batch, heads, *of_one = weights.shape  # each head draws from a key of its own, as ours do: the same mask
    keys = jax.random.split(arrays["key"], batch * heads)
    drawn = jax.vmap(lambda key: jax.random.uniform(key, of_one))(keys).reshape(weights.shape)
    return jnp.where(drawn >= 0.1, weights / 0.9, jnp.zeros_like(weights))


OPTIONS = {
    "bias": Option(_bias, scored=lambda scores, arrays: scores + jnp.broadcast_to(arrays["bias"], scores.shape), own=True),
    "soft cap": Option(numbers={"softcap": 5.0}, scored=lambda scores, arrays: 5.0 * jnp.tanh(scores / 5.0)),
    "segments": Option(_segments, hidden=_of_others),
    "ALiBi": Option(lambda key, batch, s, heads: {"alibi_slopes": 0.5 ** jnp.arange(1.0, heads + 1)}, scored=_farther),
    "window of 128": Option(numbers={"local_window_size": (127, 0)}, hidden=_too_far, own=True),
    "dropout": Option(lambda key, *_: {"key": key}, {"dropout_rate": 0.1}, dropped=_dropped),
}


def attends_with(name: str, s: int, batch: int = 1, heads: int = 4, d: int = 32) -> Callable[..., Any]:
    """Value and cotangents of causal attention over s positions, with the option of this name."""
    option = OPTIONS[name]

    def plain(q, k, v, **arrays):
        scores = option.scored(jnp.einsum("bqhd,bkhd->bhqk", q, k) * d**-0.5, arrays)
        hidden = jnp.triu(jnp.ones((s, s), bool), 1)[None, None] | option.hidden(s, arrays)
        scores = jnp.where(jnp.broadcast_to(hidden, scores.shape), jnp.full_like(scores, -jnp.inf), scores)
        return jnp.einsum("bhqk,bkhd->bqhd", option.dropped(jax.nn.softmax(scores), arrays), v)

    def hand(q, k, v, **arrays):
        return ops.attention(q, k, v, **option.numbers, **arrays)

    def own(q, k, v, **arrays):
        return jax.nn.dot_product_attention(q, k, v, is_causal=True, **option.numbers, **arrays)

    def pulled(f):
        def run(q, k, v, arrays, ct):
            learnt = {name: a for name, a in arrays.items() if jnp.issubdtype(a.dtype, jnp.floating)}
            given = {name: a for name, a in arrays.items() if name not in learnt}
            y, pull = jax.vjp(lambda q, k, v, learnt: f(q, k, v, **learnt, **given), q, k, v, learnt)
            return y, pull(ct)

        return run

    def make():
        shape = (batch, s, heads, d)
        *keys, last = jax.random.split(jax.random.key(0), 5)
        q, k, v, ct = (quickly(lambda key: jax.random.normal(key, shape), key) for key in keys)
        named = {"jax.grad": plain, "checkpoint": jax.checkpoint(plain), **({"jax.nn": own} if option.own else {})}
        return pulled(hand), {name: pulled(f) for name, f in named.items()}, (q, k, v, option.arrays(last, batch, s, heads), ct)

    return make
