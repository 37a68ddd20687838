"""What a user asks of attention, checked, as the `Scoring` and `Extras` of `scored`.

Here q has the shape (..., s, heads, d) and k (..., t, kv_heads, d): what is asked for goes by that order of axes.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ...errors import describe, expect_float, expect_key, expect_shape, real_number, whole_number
from ...linear import broadcast
from ..dropout import expect_rate
from .scored import Extras, Scoring

Causal = bool | Literal["start", "end"]


class Sizes(NamedTuple):
    """lead: the leading axes of q; s, t: queries and keys; heads of queries, and of keys."""

    lead: tuple[int, ...]
    s: int
    t: int
    heads: int
    kv_heads: int


def expect_causal(who: str, causal: Any, s: int, t: int) -> str | None:
    """None, "start" or "end". Raises ValueError for anything else, and for True where s and t differ."""
    if causal is False or causal in ("start", "end"):
        return causal or None
    if causal is not True:
        raise ValueError(f'{who}: causal must be True, False, "start" or "end", got {causal!r}.')
    if s != t:
        raise ValueError(
            f"{who}: causal attention needs as many queries as keys, got {s} and {t}; pass causal=False, or say where both "
            'meet: causal="start" (query i sees keys 0 ... i) or "end" (the last query sees all keys).'
        )
    return "start"


def expect_window(who: str, window: Any) -> tuple[int | None, int | None]:
    """(left, right) of an int for both, or of a pair of ints or None."""
    pair = (window, window) if window is None or whole_number(window) is not None else window
    if not isinstance(pair, Sequence) or len(pair) != 2:
        raise ValueError(f"{who}: window must be an int or a pair (left, right), got {window!r}; None sees all on that side.")
    found = [None if n is None else whole_number(n) for n in pair]
    if any(n is not None and (f is None or f < 0) for n, f in zip(pair, found)):
        raise ValueError(f"{who}: window must count places, 0 or more on each side, got {window!r}.")
    return found[0], found[1]


def scoring(
    who: str, d: int, *, causal: str | None, scale: Any = None, softcap: Any = None, window: Any = None, rate: Any = 0.0
) -> Scoring:
    """These as `Scoring`. Raises ValueError for a scale, cap or rate that is none."""
    factor, cap = real_number(1 / math.sqrt(d) if scale is None else scale), None if softcap is None else real_number(softcap)
    if factor is None or not math.isfinite(factor):
        raise ValueError(f"{who}: scale must be a finite number, got {scale!r}; None is 1 / sqrt(d).")
    if softcap is not None and (cap is None or not 0 < cap < math.inf):
        raise ValueError(f"{who}: softcap must be a number above 0, the bound of the scores, got {softcap!r}; None has none.")
    return Scoring(factor, cap, causal, expect_window(who, window), expect_rate(who, rate))


def extras(
    who: str, sizes: Sizes, *, bias: Any = None, slopes: Any = None, mask: Any = None, lengths: tuple[Any, Any] = (None, None),
    segments: Any = None, key: Any = None,
) -> Extras:  # fmt: skip
    """These as `Extras`, with one batch axis. Raises TypeError or ValueError for a shape or dtype that does not fit."""
    if bias is not None:
        expect_float(who, "bias", bias)
        bias = _per_score(who, "bias", bias, sizes)
    if mask is not None:
        _expect_mask(who, mask)
        k_shape = (*sizes.lead, sizes.t)
        per_key = mask.ndim == len(k_shape)
        if per_key:
            expect_shape(who, "mask", mask, k_shape)
        mask = mask.reshape(math.prod(sizes.lead), 1, 1, 1, sizes.t) if per_key else _per_score(who, "mask", mask, sizes)
    if slopes is not None:
        expect_float(who, "alibi_slopes", slopes)
        expect_shape(who, "alibi_slopes", slopes, (sizes.heads,))
        slopes = slopes.reshape(sizes.kv_heads, -1)
    names = ("query_seq_lengths", "key_value_seq_lengths")
    found = [_counts(who, name, n, sizes.lead) for name, n in zip(names, lengths)]
    if segments is not None:
        segments = _segments(who, segments, sizes)
    if key is not None:
        expect_key(who, key)
    return Extras(bias, slopes, mask, (found[0], found[1]), segments, key)


def _expect_mask(who: str, mask: Any) -> None:
    if not hasattr(mask, "dtype") or mask.dtype != jnp.bool_:
        raise TypeError(
            f"{who}: mask must be boolean, True where a key may be attended to, got {describe(mask)}; "
            "convert it, as in mask != 0."
        )


def _per_score(who: str, name: str, x: Array, sizes: Sizes) -> Array:
    """x: (..., heads, s, t), each axis of that size or 1, as (b, h, g, s, t) of sizes or 1."""
    lead, s, t, heads, h = sizes
    full = (*lead, heads, s, t)
    if x.ndim != len(full) or any(n not in (1, m) for n, m in zip(x.shape, full)):
        also = f" or {(*lead, t)}, one for each key" if name == "mask" else ""
        raise ValueError(f"{who}: {name} must have shape {full}, each axis of that size or 1{also}, got {describe(x)}.")
    if any(n != 1 for n in x.shape[: len(lead)]):
        x = broadcast(x, (*lead, *x.shape[-3:]))
    b = math.prod(x.shape[: len(lead)])
    groups = (1, 1) if x.shape[-3] == 1 else (h, heads // h)
    return x.reshape(b, *groups, *x.shape[-2:])


def _counts(who: str, name: str, n: Any, lead: tuple[int, ...]) -> Array | None:
    if n is None:
        return None
    _expect_integers(who, name, n)
    expect_shape(who, name, n, lead)
    return n.astype(jnp.int32).reshape(math.prod(lead))


def _segments(who: str, segments: Any, sizes: Sizes) -> tuple[Array, Array]:
    of_q: Any
    of_k: Any
    of_q, of_k = segments if isinstance(segments, tuple) and len(segments) == 2 else (segments, segments)
    for name, x, n in (("segment_ids", of_q, sizes.s), ("segment_ids of the keys", of_k, sizes.t)):
        _expect_integers(who, name, x)
        expect_shape(who, name, x, (*sizes.lead, n))
    b = math.prod(sizes.lead)
    return of_q.reshape(b, sizes.s), of_k.reshape(b, sizes.t)


def _expect_integers(who: str, name: str, x: Any) -> None:
    if not hasattr(x, "dtype") or not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"{who}: {name} must be integers, got {describe(x)}; convert it with .astype(int32).")


def asks_for_more(how: Scoring, found: Extras, d: int, e: int) -> bool:
    """Whether this is more than `attend` does: causal order where s = t, and a mask of keys."""
    plain = Scoring(1 / math.sqrt(d), None, how.causal)
    mask = found.mask
    per_key = mask is None or mask.shape[1:4] == (1, 1, 1)
    return how != plain or d != e or not per_key or bool(jax.tree.leaves(found._replace(mask=None)))
