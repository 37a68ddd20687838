"""Attention with all that is done to its scores: scale, soft cap, bias, masks, windows, segments, lengths, dropout.

From the products of queries and keys to the output each step is a map of its own, and the backward goes through their
transposes in reverse: a copy becomes a sum, a diagonal map stays itself, and so does a softmax. Where only causal order and a
mask of keys are asked for, `attend` does the same in less time.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ...fast.attend_hidden import both_finite, clear, finite, hide, numbers, told
from ...fast.attend_products import contract
from ...fast.choose import by_platform
from ...fast.cpu import scored as cpu
from ...linear import broadcast, broadcast_t
from ..dropout import keep_share


class Scoring(NamedTuple):
    """What is known of the scores when a program is made.

    scale: what the products are multiplied by. softcap: the c of c tanh(s / c). causal: where queries and keys meet: "start",
    so that query i sees keys 0 ... i, or "end", so that the last query sees all keys. window: (left, right), how many keys
    before and behind its own place a query sees. rate: the share of weights that dropout sets to 0. None: not asked for.
    """

    scale: float
    softcap: float | None = None
    causal: str | None = None
    window: tuple[int | None, int | None] = (None, None)
    rate: float = 0.0


class Extras(NamedTuple):
    """The arrays beside q, k and v, or None. b, h, g, s, t as in `scored_apply`; an axis may be 1, and is copied along.

    bias: (b, h, g, s, t), added to the scores; -inf hides. slopes: (h, g), a query's score falls by so much for each place
    between it and the key (ALiBi, Press et al. 2022). mask: bool (b, h, g, s, t), False hides. lengths: (b,) each, how many
    queries and keys are there. segments: (b, s) and (b, t), a query sees the keys of its own number. key: dropout's.
    """

    bias: Array | None = None
    slopes: Array | None = None
    mask: Array | None = None
    lengths: tuple[Array | None, Array | None] = (None, None)
    segments: tuple[Array, Array] | None = None
    key: Any = None


def _behind(queries: int, keys: int, how: Scoring) -> Array:
    """int32 (s, t): how many places key j stands behind query i."""
    first, shape = keys - queries if how.causal == "end" else 0, (queries, keys)
    return broadcast(numbers(0, keys)[None], shape) - broadcast(numbers(first, queries)[:, None], shape)


def seen_by(extras: Extras, how: Scoring, queries: int, keys: int) -> Array | None:
    """bool (b, h, g, s, t), each axis or 1, or None: which keys a query may look at."""
    behind, (left, right) = _behind(queries, keys, how)[None, None, None], how.window
    rules = [] if extras.mask is None else [extras.mask]
    if how.causal is not None:
        rules.append(behind <= 0)
    if left is not None:
        rules.append(behind >= -left)
    if right is not None:
        rules.append(behind <= right)
    if extras.bias is not None:
        rules.append(extras.bias > -jnp.inf)
    q_length, k_length = extras.lengths
    if q_length is not None:
        rules.append(_within(q_length, queries)[:, None, None, :, None])
    if k_length is not None:
        rules.append(_within(k_length, keys)[:, None, None, None])
    if extras.segments is not None:
        of_q, of_k = extras.segments
        shape = (*of_q.shape, of_k.shape[1])
        rules.append((broadcast(of_q[:, :, None], shape) == broadcast(of_k[:, None], shape))[:, None, None])
    if not rules:
        return None
    shape = jnp.broadcast_shapes(*(rule.shape for rule in rules))
    return jnp.stack([broadcast(rule, shape) for rule in rules]).all(0)


def _within(length: Array, n: int) -> Array:
    """bool (b, n): the places 0 ... length - 1."""
    shape = (length.size, n)
    return broadcast(numbers(0, n)[None], shape) < broadcast(length[:, None], shape)


def _scores(q: Array, k: Array, v: Array, extras: Extras, how: Scoring) -> tuple[Array, Array | None, Array | None]:
    """(s, slope, seen): the scores, the least number where hidden; the derivative of the soft cap; who sees what.

    A score is NaN where a query sees what is not finite, so that values may meet the weights as finite numbers.
    """
    seen, slope = seen_by(extras, how, q.shape[-2], k.shape[-2]), None
    s = how.scale * contract("bhgqd,bhkd->bhgqk", q, k)
    if how.softcap is not None:
        u = jnp.tanh(s / how.softcap)
        s, slope = how.softcap * u, (1 - u) * (1 + u)
    if extras.slopes is not None:
        distance = jnp.abs(_behind(q.shape[-2], k.shape[-2], how)).astype(s.dtype)
        s = s - _steep(extras.slopes, s) * broadcast(distance, s.shape)
    if extras.bias is not None:
        s = s + broadcast(extras.bias.astype(s.dtype), s.shape)
    if seen is not None:
        s = s + 0 * s + broadcast(told(v)[:, :, None, None], s.shape)
    return hide(s, seen), slope, seen


def _steep(slopes: Array, s: Array) -> Array:
    """The slope of each score's head.  slopes: (h, g), s: (b, h, g, s, t)."""
    return broadcast(slopes.astype(s.dtype)[None, :, :, None, None], s.shape)


def kept(keys: Any, shape: tuple[int, ...], rate: float) -> Array:
    """bool (heads, s, t), False for a share `rate`: of each head from a key of its own, so that few can be drawn at a time."""
    return jax.vmap(lambda key: keep_share(key, shape[1:], rate))(keys)


def _dropped(p: Array, key: Any, rate: float) -> Array:
    """D p, D diagonal with 1 / (1 - rate) where kept, else 0: its own transpose.  p as it is without a key."""
    if key is None or not rate:
        return p
    heads = math.prod(p.shape[:3])
    keep = kept(jax.random.split(key, heads), (heads, *p.shape[3:]), rate).reshape(p.shape)
    return jnp.where(keep, p * (1 / (1 - rate)), jnp.zeros_like(p))


def scored_apply(q: Array, k: Array, v: Array, extras: Extras, *, how: Scoring) -> tuple[Array, Array]:
    """y_i = sum_j p_ij v_j and log z_i,  p_ij = exp(s_ij) / z_i,  z_i = sum_j exp(s_ij) over the j that i sees, where

    s_ij = c tanh(scale q_i . k_j / c) - slope |i - j| + bias_ij.  Who sees no key has y = 0 and log z = -inf.
    q: (b, h, g, s, d): h heads of keys, each serving g heads of queries; k: (b, h, t, d); v: (b, h, t, e).
    y: (b, h, g, s, e); log z: (b, h, g, s), in at least float32.
    """
    s, _, seen = _scores(q, k, v, extras, how)
    p = clear(jax.nn.softmax(s, axis=-1), seen)
    log_z = jax.nn.logsumexp(s, axis=-1)
    if seen is not None:
        nobody = broadcast(jnp.logical_not(seen.any(-1)), log_z.shape)
        log_z = jnp.where(nobody, jnp.full_like(log_z, -jnp.inf), log_z)
        v = finite(v)
    p = _dropped(p, extras.key, how.rate)
    return contract("bhgqk,bhke->bhgqe", p.astype(v.dtype), v).astype(q.dtype), log_z


def scored_fwd(q: Array, k: Array, v: Array, extras: Extras, *, how: Scoring) -> Any:
    y, log_z = scored_apply(q, k, v, extras, how=how)
    return (y, log_z), (q, k, v, extras, y, log_z)


def scored_bwd(residuals: Any, cts: Any, *, how: Scoring) -> Any:
    q, k, v, extras, _, _ = residuals
    ct_y, ct_log_z = cts
    s, slope, seen = _scores(q, k, v, extras, how)
    p = clear(jax.nn.softmax(s, axis=-1), seen)
    some = None
    if seen is not None:
        some = p != 0  # it stands for `seen`: a weight of zero passes nothing back, and p is kept anyway
        q, k, v = *both_finite(q, k), finite(v)
    dropped = _dropped(p, extras.key, how.rate)
    ct_v = contract("bhgqk,bhgqe->bhke", dropped.astype(v.dtype), ct_y)  # forward, p v summed over keys k; back, over queries q
    ct_p = _dropped(contract("bhgqe,bhke->bhgqk", ct_y, v), extras.key, how.rate)  # and over features e
    # softmax's Jacobian diag(p) - p pᵀ is its own transpose; the gradient of log z is p itself.
    inner = (p * ct_p).sum(-1) - ct_log_z
    ct_s = p * clear(ct_p - broadcast(inner[..., None], p.shape), some)
    # A bias and a slope were copied along what they lack of (b, h, g, s, t): the transpose of a copy is a sum.
    ct_bias = None if extras.bias is None else broadcast_t(ct_s, extras.bias.shape).astype(extras.bias.dtype)
    ct_slopes = None
    if extras.slopes is not None:
        distance = jnp.abs(_behind(q.shape[-2], k.shape[-2], how)).astype(s.dtype)
        ct_slopes = -(ct_s * broadcast(distance, s.shape)).sum((0, 3, 4)).astype(extras.slopes.dtype)
    ct_s = ct_s if slope is None else clear(ct_s * slope, some)  # the soft cap's Jacobian is diagonal
    ct_s = (how.scale * ct_s).astype(q.dtype)  # a multiple is its own transpose
    ct_q = contract("bhgqk,bhkd->bhgqd", ct_s, k).astype(q.dtype)  # forward, q k summed over features d; back, over keys k
    ct_k = contract("bhgqk,bhgqd->bhkd", ct_s, q).astype(k.dtype)  # and over queries q, and the g heads k was copied to
    return ct_q, ct_k, ct_v.astype(v.dtype), Extras(ct_bias, ct_slopes)


def fast_fwd(q: Array, k: Array, v: Array, extras: Extras, *, how: Scoring) -> Any:
    """`scored_fwd` in the spelling of the platform."""
    extras = extras if how.rate else extras._replace(key=None)
    draw = partial(kept, rate=how.rate)
    y, log_z = by_platform(
        q, k, v, extras, plain=partial(scored_apply, how=how), cpu=partial(cpu.scored_fwd, how=how, kept=draw)
    )  # fmt: skip
    return (y, log_z), (q, k, v, extras, y, log_z)


def fast_bwd(residuals: Any, cts: Any, *, how: Scoring) -> Any:
    """`scored_bwd` in the spelling of the platform."""

    def plain(residuals, cts):
        ct_q, ct_k, ct_v, ct = scored_bwd(residuals, cts, how=how)
        return ct_q, ct_k, ct_v, ct.bias, ct.slopes

    ct_q, ct_k, ct_v, *ct = by_platform(
        residuals, cts, plain=plain, cpu=partial(cpu.scored_bwd, how=how, kept=partial(kept, rate=how.rate))
    )
    return ct_q, ct_k, ct_v, Extras(*ct)
