"""Text from a `gpt` that caches its keys and values: each new id costs one position, not the whole prefix again."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..combinators import TiedParams, serial
from ..errors import describe, expect_array, expect_arrays, expect_positive
from ..layer import Layer, expect_layer
from ..layers.activation import gelu
from ..layers.attention import attention_step, expect_attention
from ..layers.dense import dense
from ..layers.embedding import EmbeddingParams, embedding
from ..layers.norm import NormParams, layer_norm
from ..linear import broadcast, take
from .generate import expect_request, pick


def _parts(params) -> tuple[Any, ...]:
    """(table, head, positions, blocks stacked, last norm) of the parameters of a `gpt`; if it is tied, table is head."""
    if isinstance(params, TiedParams):
        (embed, body), head = params, params.table
    elif isinstance(params, tuple) and [type(p) for p in params] == [EmbeddingParams, tuple, EmbeddingParams]:
        embed, body, head = params  # made with tie=False
    else:
        raise TypeError(f"generate_gpt: params must be those of gpt(...), got {describe(params)}; make them with its init.")
    expect_arrays("generate_gpt", "params", params, "make them with the init of gpt")
    try:
        parts: list[Any] = [p for p in body if not isinstance(p, tuple) or p]  # dropout has none
        positions, blocks, norm = parts
        if not isinstance(blocks[0][0], NormParams):  # made with scan=False
            blocks = jax.tree.map(lambda *ps: jnp.stack(ps), *blocks)
        table, places = head.table, positions.table
    except (AttributeError, IndexError, TypeError, ValueError):
        raise TypeError(
            "generate_gpt: params must be those of gpt(...), got a tuple with other parts; make them with its init."
        ) from None
    expect_array("generate_gpt", "params: the table of ids", table)
    expect_array("generate_gpt", "params: the table of positions", places)
    if table.ndim != 2 or places.ndim != 2 or table.shape[1] != places.shape[1]:
        raise ValueError(
            f"generate_gpt: params must hold tables of the same width for ids and positions, got {describe(table)} and "
            f"{describe(places)}; make them with the init of gpt."
        )
    return embed, table, places, blocks, norm


class Decoder(NamedTuple):
    """A `gpt` or `llama`, one position at a time.

    context: its longest text; table: of the ids; empty(rows, steps): an empty cache of keys and values for this many steps;
    step(ids, kept, t) -> (logits (rows, vocab), kept), for the ids (rows,) at position t, t = 0, 1, ... in turn.
    """

    context: int
    table: Array
    empty: Callable[[int, int], Any]
    step: Callable[[Array, Any, Array], tuple[Array, Any]]


def decoder(
    params: Any, *, heads: int, activation: Layer | None = None, eps: float = 1e-5, feed: Layer | None = None
) -> Decoder:
    """The decoder for the parameters of a `gpt`, which may be traced; the rest as in `generate_gpt`."""
    expect_positive("generate_gpt", heads=heads)
    activation = gelu(approximate=True) if activation is None else activation
    expect_layer("generate_gpt", activation)
    embed, head, positions, blocks, last_norm = _parts(params)
    context, width = positions.shape
    table, opts, norm = embed.table, expect_attention(width, heads), layer_norm(width, eps=eps)
    if feed is None:
        hidden = blocks[1][1].b.shape[-1]
        feed = serial(norm, dense(width, hidden), serial(activation, dense(hidden, width)))
    else:
        expect_layer("generate_gpt", feed)
        feed = serial(norm, feed)

    def empty(rows, steps):
        one = jnp.zeros((blocks[0][0].scale.shape[0], rows, heads, steps, width // heads), table.dtype)
        return one, one

    def block(carry, p_cache):
        x, t = carry
        (p, cache) = p_cache
        (p_norm, p_attention, *_), p_feed = p
        y, cache = attention_step(p_attention, norm.apply(p_norm, x), cache, t, opts=opts)
        x = x + y
        return (x + feed.apply(p_feed[: len(feed.parts)], x), t), cache

    def step(ids, kept, t):
        x = take(table, ids) + broadcast(positions[t], (ids.shape[0], width))
        (x, _), kept = lax.scan(block, (x, t), (blocks, kept))
        return norm.apply(last_norm, x) @ head.T, kept

    return Decoder(context, table, empty, step)


def written(decode: Decoder, prompt: Array, length: int, key: Any, temperature: float) -> Array:
    """`length` ids after `prompt`, one position at a time.  prompt: int32 (rows, s), result: int32 (rows, length)."""
    rows, s = prompt.shape
    steps = s + length - 1

    def step(carry, now):
        last, kept = carry
        t, k, told, is_told = now
        logits, kept = decode.step(jnp.where(is_told, told, last), kept, t)
        last = pick(logits, k, temperature)
        return (last, kept), last

    told = jnp.pad(prompt.T, ((0, length - 1), (0, 0)))
    numbers = jnp.arange(steps, dtype=jnp.int32)
    keys = None if key is None else jax.random.split(key, steps)
    start = (jnp.zeros((rows,), jnp.int32), decode.empty(rows, steps))
    _, ids = lax.scan(step, start, (numbers, keys, told, numbers < s))
    return ids[s - 1 :].T


def generate_gpt(
    params: Any, prompt: Array, length: int, *, heads: int, key: Any = None, temperature: float = 1.0,
    activation: Layer | None = None, eps: float = 1e-5, feed: Layer | None = None,
) -> Array:  # fmt: skip
    """`length` new ids after `prompt`.  prompt: integers (..., s), s >= 1; result: int32 (..., length).

    params: those of gpt(vocab, context, layers, heads, width), in any of its forms; heads, activation and eps: those of the
    gpt (`models.gpt2_options` reads those of a file). feed: what stands in each block in place of the mlp; for a `moe`
    it is `models.moe_feed(width, experts, top_k)`. With a key each id is drawn from softmax(logits / temperature);
    without one, or at temperature 0, it is the most probable, the first one if several tie.
    Pure: the same arguments give the same ids, also under `jit` (with only params, prompt and key traced).
    Raises ValueError if s + length - 1 is more than the context, TypeError for a prompt that is not integers.

    >>> params = nnjax.gpt(65, context=16, layers=2, heads=4, width=32).init(jax.random.key(0))
    >>> nnjax.generate_gpt(params, jnp.array([1, 2]), 5, heads=4).shape
    (5,)
    """
    expect_request("generate_gpt", prompt, length, key, temperature)
    decode = decoder(params, heads=heads, activation=activation, eps=eps, feed=feed)
    context = decode.context
    steps = prompt.shape[-1] + length - 1 if prompt.ndim else 0
    if prompt.ndim < 1 or prompt.shape[-1] < 1 or steps > context:
        raise ValueError(
            f"generate_gpt: prompt must have shape (..., s), s from 1 to {context + 1 - length}, so that {length} more fit in "
            f"the context of {context}, got {describe(prompt)}; cut it, or reduce length."
        )
    embedding(*decode.table.shape).apply(EmbeddingParams(decode.table), prompt)  # raises for unknown ids
    given = prompt.reshape(-1 if prompt.size else 0, prompt.shape[-1]).astype(jnp.int32)
    return written(decode, given, length, key, temperature).reshape(*prompt.shape[:-1], length)
