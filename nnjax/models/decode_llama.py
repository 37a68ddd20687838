"""Text from a `llama` that caches its keys and values, and past its context from a window that moves along."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..combinators import TiedParams
from ..errors import describe, expect_array, expect_arrays
from ..layers.attention import attention_step, expect_attention
from ..layers.embedding import EmbeddingParams, embedding
from ..layers.gating.gated import swiglu
from ..layers.norm import rms_norm
from ..linear import take
from .decode import Decoder, written
from .generate import expect_request, pick
from .llama import LlamaOptions, expect_llama, llama

WHO = "generate_llama"
HOW = ("fused", "remat", "kernel")  # options of `llama` that make no difference here


def expect_options(options: Any) -> LlamaOptions:
    """The options of a `llama`, complete. Raises TypeError or ValueError, which names what is missing or unknown."""
    if not isinstance(options, Mapping):
        raise TypeError(f"{WHO}: options must be the arguments of llama, by name, got {describe(options)}; pass the same dict "
                        "as in llama(**options).")  # fmt: skip
    given = {name: value for name, value in options.items() if name not in HOW}
    try:
        return expect_llama(LlamaOptions(**given))
    except TypeError as error:
        raise TypeError(f"{WHO}: options must be the arguments of llama, by name: {error}; pass the same dict as in "
                        "llama(**options).") from None  # fmt: skip


def _parts(params: Any, o: LlamaOptions) -> tuple[Any, Any, list[Any], Any]:
    """(table, head, the blocks of each stack, stacked, last norm)."""
    expect_arrays(WHO, "params", params, "make them with the init of llama")
    try:
        embed, body, head = (params.table, params.body, params.table) if isinstance(params, TiedParams) else params
        *stacks, norm = [p for p in body if not isinstance(p, tuple) or p]  # dropout has none
        if not o.scan:
            (blocks,) = stacks
            ends = [sum(n for n, _ in o.stacks()[: i + 1]) for i in range(len(o.stacks()))]
            rows = [blocks[end - n : end] for (n, _), end in zip(o.stacks(), ends)]
            stacks = [jax.tree.map(lambda *ps: jnp.stack(ps), *row) for row in rows]
        for table in (embed.table, head.table):
            expect_array(WHO, "params: a table", table)
        if embed.table.shape != (o.vocab, o.width) or [s[0][0].scale.shape[0] for s in stacks] != [n for n, _ in o.stacks()]:
            raise ValueError
        return embed.table, head.table, stacks, norm
    except (AttributeError, IndexError, TypeError, ValueError):
        raise TypeError(f"{WHO}: params must be those of llama(**options), got {describe(params)} with other parts or sizes; "
                        "make them with its init.") from None  # fmt: skip


def llama_decoder(params: Any, o: LlamaOptions) -> Decoder:
    """The decoder for the parameters of a `llama`, which may be traced.  o: complete options."""
    table, head, stacks, last_norm = _parts(params, o)
    norm, feed = rms_norm(o.width, eps=o.eps), swiglu(o.width, o.hidden or 0)
    hows = [expect_attention(o.width, o.heads, **o.attention(window)) for _, window in o.stacks()]

    def empty(rows, steps):
        def one(n, how):
            return jnp.zeros((n, rows, how.kv_heads, steps, how.d), table.dtype)

        return [(one(n, how), one(n, how)) for (n, _), how in zip(o.stacks(), hows)]

    def block(how):
        def run(carry, p_cache):
            x, t = carry
            ((p_norm, p_attention, *_), (p_second, p_feed, *_)), cache = p_cache
            y, cache = attention_step(p_attention, norm.apply(p_norm, x), cache, t, opts=how)
            x = x + y
            return (x + feed.apply(p_feed, norm.apply(p_second, x)), t), cache

        return run

    def step(ids, kept, t):
        x, new = take(table, ids), []
        for how, blocks, cache in zip(hows, stacks, kept):
            (x, _), cache = lax.scan(block(how), (x, t), (blocks, cache))
            new.append(cache)
        return norm.apply(last_norm, x) @ head.T, new

    return Decoder(o.context, table, empty, step)


def generate_llama(
    params: Any, prompt: Array, length: int, *, options: Mapping[str, Any], key: Any = None, temperature: float = 1.0
) -> Array:
    """`length` new ids after `prompt`.  prompt: integers (..., s), s >= 1; result: int32 (..., length).

    options: the arguments of `llama`, by name (`models.llama_options` reads those of a file). With a key each id is drawn from
    softmax(logits / temperature); without one, or at temperature 0, it is the most probable, the first one if several tie.
    Keys and values are kept while the text fits in the context. After that each new id costs a whole window, the last `context`
    ids, whose positions are counted from 0 again: scores depend on distances alone, so that counting on would give the same.
    Pure: the same arguments give the same ids, also under `jit` (with only params, prompt and key traced).
    Raises TypeError for a prompt that is not integers or params of another model, ValueError for no prompt or unknown ids.

    >>> options = {"vocab": 65, "context": 16, "layers": 2, "heads": 4, "width": 32}
    >>> params = nnjax.llama(**options).init(jax.random.key(0))
    >>> nnjax.generate_llama(params, jnp.array([1, 2]), 20, options=options).shape
    (20,)
    """
    expect_request(WHO, prompt, length, key, temperature)
    o = expect_options(options)
    decode = llama_decoder(params, o)
    if prompt.ndim < 1 or prompt.shape[-1] < 1:
        raise ValueError(f"{WHO}: prompt must have shape (..., s) with at least one id, got {describe(prompt)}; start e.g. "
                         "with a newline.")  # fmt: skip
    embedding(o.vocab, o.width).apply(EmbeddingParams(decode.table), prompt)  # raises for unknown ids
    given = prompt.reshape(-1 if prompt.size else 0, prompt.shape[-1]).astype(jnp.int32)
    cached = min(length, max(0, o.context - prompt.shape[-1] + 1))
    first_key, second_key = (None, None) if key is None else jax.random.split(key)
    ids = jnp.concatenate([given, written(decode, given, cached, first_key, temperature)], -1) if cached else given
    if length > cached:
        model = llama(**{name: value for name, value in options.items() if name not in HOW})

        def step(window, k):
            last = pick(model.apply(params, window)[:, -1], k, temperature)
            return jnp.concatenate([window[:, 1:], last[:, None]], -1), last

        left = length - cached
        keys = None if second_key is None else jax.random.split(second_key, left)
        _, more = lax.scan(step, ids[:, -o.context :], keys, left)
        ids = jnp.concatenate([ids, more.T], -1)
    return ids[:, prompt.shape[-1] :].reshape(*prompt.shape[:-1], length)
