"""Rotary positions: by which angle a pair of features is turned at a position, also in texts longer than before."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from ...errors import expect_flag, real_number, unknown_name
from ...linear import broadcast, wide

THETA = 10000.0
# What each kind of scaling needs, and what it also takes, under the names of `rope_scaling` in a config.json.
NEEDS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
}
TAKES = {"yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")}


class Rotary(NamedTuple):
    """rates: radians for each position, of the d / 2 pairs of features; gain: what turned features are multiplied by."""

    rates: tuple[float, ...]
    gain: float = 1.0


def rotary(who: str, d: int, theta: Any = THETA, scaling: Mapping[str, Any] | None = None) -> Rotary:
    """The rates theta^(-2 i / d), i = 0 ... d/2 - 1 (Su et al. 2021, eq. 15), changed as `scaling` says:

    {"rope_type": "linear", "factor": f}: all divided by f.
    "llama3": those that turn less than low_freq_factor times over the original context are divided by factor, those that turn
    more than high_freq_factor times stay, and between them the share that stays grows with the turns.
    "yarn": likewise between beta_slow and beta_fast (1 and 32) turns, the share growing with i, and cos and sin times
    attention_factor, 0.1 log(factor) + 1 by default (Peng et al. 2023, section 3).
    Raises ValueError for an odd d, another kind, or a number that is missing or makes no sense.
    """
    if d % 2:
        raise ValueError(f"{who}: rope turns pairs of features, so a head must have an even number, got {d}; change the sizes.")
    base = real_number(theta)
    if base is None or not 1 < base < math.inf:
        raise ValueError(f"{who}: rope_theta must be a finite number above 1, got {theta!r}; 10000 is usual.")
    kind, given = _given(who, scaling)
    rates = base ** (-2 * np.arange(d // 2) / d)
    if kind == "linear":
        rates = rates / given["factor"]
    elif kind == "llama3":
        low, high = given["low_freq_factor"], given["high_freq_factor"]
        turns = given["original_max_position_embeddings"] * rates / (2 * math.pi)
        rates = _stretched(rates, given["factor"], (turns - low) / (high - low))
    elif kind == "yarn":
        fast, slow = (_pair(given.get(name, n), d, base, given) for name, n in (("beta_fast", 32.0), ("beta_slow", 1.0)))
        if given.get("truncate", True):
            fast, slow = math.floor(fast), math.ceil(slow)
        first, last = max(fast, 0), min(slow, d - 1)
        last = last if last != first else last + 0.001
        rates = _stretched(rates, given["factor"], 1 - (np.arange(d // 2) - first) / (last - first))
    return Rotary(tuple(rates.tolist()), _gain(given) if kind == "yarn" else 1.0)


def _stretched(rates: np.ndarray, factor: float, share: np.ndarray) -> np.ndarray:
    """Rates of which this share stays, cut to 0 ... 1, and the rest is divided by the factor."""
    share = np.clip(share, 0, 1)
    return rates * share + rates / factor * (1 - share)


def _pair(turns: float, d: int, base: float, given: Mapping[str, float]) -> float:
    """The number i of the pair that turns so often over the original context."""
    return d * math.log(given["original_max_position_embeddings"] / (turns * 2 * math.pi)) / (2 * math.log(base))


def _gain(given: Mapping[str, float]) -> float:
    def of(m: float) -> float:
        return 0.1 * m * math.log(given["factor"]) + 1.0

    if "attention_factor" in given:
        return given["attention_factor"]
    if "mscale" in given and "mscale_all_dim" in given:
        return of(given["mscale"]) / of(given["mscale_all_dim"])
    return of(1.0)


def _given(who: str, scaling: Any) -> tuple[str, dict[str, float]]:
    """(the kind of scaling, its numbers by name, without those that are None)."""
    if scaling is None:
        return "default", {}
    if not isinstance(scaling, Mapping):
        raise ValueError(
            f'{who}: rope_scaling must be a dict such as {{"rope_type": "linear", "factor": 2.0}}, got {scaling!r}.'
        )
    given = {name: value for name, value in scaling.items() if value is not None}
    kinds = [given.pop(name) for name in ("rope_type", "type") if name in given]  # `type` in older files
    if not kinds or str(kinds[-1]) != str(kinds[0]):
        raise ValueError(f"{who}: rope_scaling must have one rope_type, got {dict(scaling)!r}; name one of {', '.join(NEEDS)}.")
    kind = kinds[0]
    if not isinstance(kind, str) or kind not in NEEDS:
        raise unknown_name(f"rope_type of {who}", kind, NEEDS)
    known = (*NEEDS[kind], *TAKES.get(kind, ()))
    for name in (*NEEDS[kind], *given):
        if name not in given:
            raise ValueError(f"{who}: rope_scaling of the rope_type {kind} needs {name}, got {dict(scaling)!r}; add it.")
        if name not in known:
            raise ValueError(f"{who}: rope_scaling of the rope_type {kind} has no {name}, got {given[name]!r}; leave it out.")
    numbers = {name: _number(who, name, value) for name, value in given.items()}
    if kind == "llama3" and numbers["low_freq_factor"] >= numbers["high_freq_factor"]:
        raise ValueError(f"{who}: rope_scaling: low_freq_factor must be less than high_freq_factor, got {dict(scaling)!r}.")
    if kind == "yarn" and numbers.get("beta_slow", 1.0) >= numbers.get("beta_fast", 32.0):
        raise ValueError(f"{who}: rope_scaling: beta_slow must be less than beta_fast, got {dict(scaling)!r}.")
    return kind, numbers


def _number(who: str, name: str, value: Any) -> float:
    if name == "truncate":
        expect_flag(who, truncate=value)
        return bool(value)
    number, least = real_number(value), 1.0 if name == "factor" else 0.0
    if number is None or not least <= number < math.inf or number == 0:
        raise ValueError(f"{who}: rope_scaling: {name} must be a finite number {'of at least 1' if least else 'above 0'}, got "
                         f"{value!r}; correct it.")  # fmt: skip
    return number


def angles(positions: Array, by: Rotary, acc: Any) -> tuple[Array, Array]:
    """(cos, sin) of position * rate, times the gain.  positions: (s,), each result: (s, d/2).

    acc: their dtype, at least float32, as a position is not exact in bfloat16 beyond 256.
    """
    shape = (positions.size, len(by.rates))
    angle = broadcast(positions.astype(acc)[:, None], shape) * broadcast(jnp.asarray(by.rates, acc)[None], shape)
    return by.gain * jnp.cos(angle), by.gain * jnp.sin(angle)


def turned(turn: Callable[..., Any], x: Array, positions: Array, by: Rotary) -> Array:
    """`rotate` or its transpose over (..., s, d), in at least float32.

    With a gain c it is c R, whose transpose is c Rᵀ: `rotate_t` of the same cos and sin.
    """
    cos, sin = angles(positions, by, wide(x))
    half = (*x.shape[:-1], x.shape[-1] // 2)
    return turn(x.astype(cos.dtype), broadcast(cos, half), broadcast(sin, half)).astype(x.dtype)
