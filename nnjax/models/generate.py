"""Text from a model that carries its state: each new token costs one step, not the whole prefix again.

The model maps (ids, state) to (logits, state), where state=None is the initial state:
`char_rnn(..., carry=True)` is one. ids: integers (..., time), logits: (..., time, vocab).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..errors import describe, expect_key, expect_positive, is_array, real_number
from ..layer import Layer, expect_layer
from ..linear import broadcast, wide


def expect_request(who: str, prompt: Any, length: int, key: Any, temperature: float) -> None:
    """Raise a clear error for arguments that no generator accepts."""
    expect_positive(who, length=length)
    if key is not None:
        expect_key(who, key)
    amount = real_number(temperature)
    if amount is None or not amount >= 0:
        raise ValueError(f"{who}: temperature must be at least 0, got {temperature!r}; 0 takes the most probable id.")
    if not is_array(prompt) or not jnp.issubdtype(prompt.dtype, jnp.integer):
        raise TypeError(f"{who}: prompt must be integers, got {describe(prompt)}; encode the text first.")


def pick(logits: Array, key: Any, temperature: float, top_k: int | None = None) -> Array:
    """One id for each row of logits: drawn with a key, the most probable without one or at temperature 0.

    top_k: draw only among this many of the most probable.

    It draws in float32 at least: in bfloat16 many numbers tie, and the first of them would be taken.
    """
    if key is None or temperature == 0:
        return logits.argmax(-1).astype(jnp.int32)
    logits = logits.astype(wide(logits))
    tiny = float(jnp.finfo(logits.dtype).tiny)
    temperature = min(max(float(temperature), tiny), 1 / tiny)  # outside, 0 / 0 and inf / inf would be NaN
    below = logits - broadcast(logits.max(-1, keepdims=True), logits.shape)  # the largest stays 0 whatever the temperature
    if top_k is None or top_k >= logits.shape[-1]:
        return jax.random.categorical(key, below / temperature).astype(jnp.int32)
    largest, ids = lax.top_k(below, top_k)
    drawn = jax.random.categorical(key, largest / temperature).astype(jnp.int32)
    return jnp.take_along_axis(ids, drawn[..., None], -1)[..., 0].astype(jnp.int32)


def generate(model: Layer, params: Any, prompt: Array, length: int, *, key: Any = None, temperature: float = 1.0) -> Array:
    """`length` new ids after `prompt`.  prompt: integers (..., time) with time >= 1, result: int32 (..., length).

    With a key each id is drawn from softmax(logits / temperature); without one, or at temperature 0, it is the most
    probable, the first one if several tie.
    Pure: the same arguments give the same ids, also under `jit` (with model, length and temperature static).
    Raises ValueError for an empty prompt or a negative temperature, TypeError for a prompt that is not integers
    or a model without a state.
    """
    expect_layer("generate", model)
    expect_request("generate", prompt, length, key, temperature)
    if prompt.ndim < 1 or prompt.shape[-1] < 1:
        raise ValueError(f"generate: prompt must have shape (..., time) with at least one id, got {describe(prompt)}; "
                         "start e.g. with a newline.")  # fmt: skip

    def run(ids, state):
        out = model.apply(params, (ids, state))
        if not isinstance(out, tuple) or len(out) != 2:
            raise TypeError(f"generate: {model.name} must return (logits, state), got {describe(out)}; use carry=True.")
        logits, state = out
        return logits[..., -1, :], state

    def step(carry, k):
        last, state = carry
        logits, state = run(last[..., None], state)
        last = pick(logits, k, temperature)
        return (last, state), last

    keys = None if key is None else jax.random.split(key, length)
    logits, state = run(prompt, None)
    first = pick(logits, None if keys is None else keys[0], temperature)
    _, rest = lax.scan(step, (first, state), None if keys is None else keys[1:], length - 1)
    return jnp.concatenate([first[..., None], jnp.moveaxis(rest, 0, -1)], -1)
