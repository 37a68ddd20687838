"""Text from a trained network, a character at a time, of any length."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...data.text import Text
from ...errors import describe, expect_positive
from ...layer import Layer
from ...models.decode import Decoder, decoder
from ...models.decode_llama import expect_options, llama_decoder
from ...models.generate import expect_request, pick
from ...models.moe import moe_feed
from .network import Network, layer_of

READ = 256  # characters of a prompt that a recurrent network reads at once, at most


class Writer(NamedTuple):
    """logits(params, ids): an endless generator of the logits (1, vocab) of the next character; it is sent each chosen id.

    text: holds only the vocabulary, to encode and decode.
    """

    logits: Callable[[Any, Sequence[int]], Any]
    text: Text


def writer(model: Layer, network: Network, vocabulary: str, name: str) -> Writer:
    """The Writer of a gpt, llama, moe or char_rnn; model: its layer that returns logits. name: of the text, for errors."""
    none = np.zeros(0, np.int32)
    options = network.options
    if network.kind in ("gpt", "moe"):
        moe = network.kind == "moe"
        own: dict[str, Any] = {"feed": moe_feed(options["width"], options["experts"], options["top_k"])} if moe else {}
        make = _from_windows(model, lambda params: decoder(params, heads=options["heads"], **own), options["context"])
    elif network.kind == "llama":
        make = _from_windows(model, lambda params: llama_decoder(params, expect_options(options)), options["context"])
    else:
        make = _from_states(network)
    return Writer(make, Text(name, none, none, vocabulary))


def _from_windows(model: Layer, decode: Callable[[Any], Decoder], context: int) -> Callable[[Any, Sequence[int]], Any]:
    """A transformer caches keys and values until its context is full; after that it reads the last `context` characters
    each time, from position 0 on."""
    empty = jax.jit(lambda params: decode(params).empty(1, context))

    @partial(jax.jit, donate_argnums=2)
    def step(params, ids, kept, t):
        return decode(params).step(ids, kept, t)

    @jax.jit
    def whole(params, window):
        return model.apply(params, window)[:, -1]

    def logits(params: Any, ids: Sequence[int]) -> Any:
        ids = list(ids[-context:])
        if len(ids) < context:
            kept, t, out = empty(params), 0, None
            while t < context:
                while t < len(ids):
                    out, kept = step(params, np.array(ids[t : t + 1], np.int32), kept, np.int32(t))
                    t += 1
                if t < context:
                    ids.append((yield out))
            del kept
            ids = [*ids[1:], (yield out)]
        while True:
            ids = [*ids[1:], (yield whole(params, np.array(ids, np.int32)[None]))]

    return logits


def _from_states(network: Network) -> Callable[[Any, Sequence[int]], Any]:
    """A recurrent network carries its state; it reads a prompt in pieces of lengths that are powers of two."""
    model = layer_of(network, carry=True)

    @jax.jit
    def first(params, ids):
        out, state = model.apply(params, (ids, None))
        return out[:, -1], state

    @jax.jit
    def step(params, ids, state):
        out, state = model.apply(params, (ids, state))
        return out[:, -1], state

    def logits(params: Any, ids: Sequence[int]) -> Any:
        given, state, out = np.array(ids, np.int32)[None], None, None
        while given.size:
            n = min(READ, 1 << (given.size.bit_length() - 1))
            out, state = first(params, given[:, :n]) if state is None else step(params, given[:, :n], state)
            given = given[:, n:]
        while True:
            chosen = yield out
            out, state = step(params, np.array([[chosen]], np.int32), state)

    return logits


@lru_cache(maxsize=32)
def _picking(temperature: float, top_k: int | None) -> Callable[[Any, Any, Any], Any]:
    return jax.jit(lambda logits, key, i: pick(logits, jax.random.fold_in(key, i), temperature, top_k))


def characters(
    writer: Writer, params: Any, prompt: str | None, n: int | None, temperature: float, top_k: int | None, key: jax.Array
) -> Iterator[str]:
    """n characters after the prompt, or without end; each is drawn with its own key, whatever n is.

    prompt: None means the start of a line. temperature, top_k: as in `pick`.
    Raises, before the first character, ValueError or TypeError for invalid arguments, DataError for a prompt with characters
    that the network never saw.
    """
    vocabulary = writer.text.vocabulary
    prompt = ("\n" if "\n" in vocabulary else vocabulary[0]) if prompt is None else prompt
    if not isinstance(prompt, str) or not prompt:
        came = "an empty one" if prompt == "" else describe(prompt)
        raise ValueError(f"sample: prompt must be a text of at least one character, got {came}; leave it out for a new line.")
    ids = writer.text.encode(prompt)
    expect_request("sample", ids, 1 if n is None else n, key, temperature)
    if top_k is not None:
        (top_k,) = expect_positive("sample", top_k=top_k)
    chosen = _picking(float(temperature), top_k)

    def made() -> Iterator[str]:
        source, answer, i = writer.logits(params, ids.tolist()), None, 0
        while n is None or i < n:
            answer = int(chosen(source.send(answer), key, jnp.int32(i))[0])
            yield vocabulary[answer]
            i += 1

    return made()
