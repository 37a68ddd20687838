"""Attention with all that is done to its scores, on a CPU: rows of queries forward, rows of keys backward, as in `attend_rows`.

A row meets the keys that its window lets it see, as a slice of static size, and what a window hides is never computed. What
differs from head to head goes with a chunk of heads. What heads share (a bias, a mask) is looked up by number, and the bias's
cotangent is added at that number.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...linear import broadcast, wide
from ..attend_hidden import clear, finite, hide, numbers, told
from ..attend_products import contract, exp_less
from .attend_rows import PRODUCTS, along, by_head, copied, t

ROW = 64  # queries or keys at a time


class Band(NamedTuple):
    """Query i sees keys first + i - left ... first + i + right, where these are not None."""

    first: int
    left: int | None
    right: int | None


def band_of(how: Any, queries: int, keys: int) -> Band:
    left, right = how.window
    if how.causal is not None:
        right = 0
    return Band(keys - queries if how.causal == "end" else 0, left, right)


def rows_of(many: int, others: int, n: int, before: int | None, after: int | None, first: int) -> list[tuple[slice, slice]]:
    """(n places, those of the others from first + place - before to first + place + after) of every row, as slices."""
    found = []
    for start in range(0, many, n):
        stop = min(start + n, many)
        low = 0 if before is None else min(max(0, start + first - before), others)
        high = others if after is None else max(low, min(others, stop + first + after))
        found.append((slice(start, stop), slice(low, high)))
    return found


class Heads(NamedTuple):
    """What a head has of `Extras`, (heads, ...) each, or None. bias, mask: which of `Shared` is its own."""

    slopes: Array | None
    lengths: tuple[Array | None, Array | None]
    segments: tuple[Array, Array] | None
    bias: Array | None
    mask: Array | None
    key: Any


class Shared(NamedTuple):
    """The biases and masks that differ, (how many, s, t), each of the last two perhaps 1; or None."""

    bias: Array | None
    mask: Array | None


def _split(extras: Any, groups: tuple[int, ...]) -> tuple[Heads, Shared]:
    """What each of the (b, h, g) heads has, and what they share."""

    def each(x, axes):
        return None if x is None else by_head(broadcast(jnp.expand_dims(x, axes), (*groups, *x.shape[3 - len(axes) :])))

    def which(x):
        if x is None:
            return None
        own = jnp.arange(math.prod(x.shape[:3]), dtype=jnp.int32).reshape(x.shape[:3])
        return broadcast(own, groups).reshape(math.prod(groups))

    def different(x):
        return None if x is None else by_head(x)

    segments = extras.segments
    heads = Heads(
        each(extras.slopes, (0,)),
        tuple(each(n, (1, 2)) for n in extras.lengths),  # type: ignore[arg-type]
        None if segments is None else tuple(each(x, (1, 2)) for x in segments),  # type: ignore[arg-type]
        which(extras.bias), which(extras.mask),
        None if extras.key is None else jax.random.split(extras.key, math.prod(groups)),
    )  # fmt: skip
    return heads, Shared(different(extras.bias), different(extras.mask))


def _part(x: Array, queries: slice, keys: slice) -> Array:
    """x: (c, s, t), each of the last two perhaps 1, at these queries and keys."""
    return x[:, queries if x.shape[1] > 1 else slice(None), keys if x.shape[2] > 1 else slice(None)]


def _seen(heads: Heads, mask: Array | None, bias: Array | None, queries: slice, keys: slice, band: Band) -> Array | None:
    """bool (c, q, k), each axis or 1, or None: which of these keys these queries may look at.  mask, bias: of this part."""
    rows, columns = (numbers(s.start, s.stop - s.start) for s in (queries, keys))
    shape, rules = (rows.size, columns.size), []
    behind = broadcast(columns[None], shape) - broadcast(rows[:, None] + band.first, shape)
    if band.left is not None and queries.stop - 1 + band.first - band.left > keys.start:
        rules.append((behind >= -band.left)[None])
    if band.right is not None and queries.start + band.first + band.right < keys.stop - 1:
        rules.append((behind <= band.right)[None])
    if mask is not None:
        rules.append(mask)
    if bias is not None:
        rules.append(bias > -jnp.inf)
    for length, places, axis in zip(heads.lengths, (rows, columns), (2, 1)):
        if length is not None:
            at = (length.size, places.size)
            rules.append(jnp.expand_dims(broadcast(places[None], at) < broadcast(length[:, None], at), axis))
    if heads.segments is not None:
        of_q, of_k = heads.segments[0][:, queries], heads.segments[1][:, keys]
        both = (*of_q.shape, columns.size)
        rules.append(broadcast(of_q[:, :, None], both) == broadcast(of_k[:, None], both))
    if not rules:
        return None
    seen = rules[0]
    for rule in rules[1:]:
        both: Any = jnp.broadcast_shapes(seen.shape, rule.shape)
        seen = broadcast(seen, both) & broadcast(rule, both)
    return seen


def _distance(queries: slice, keys: slice, band: Band, dtype: Any) -> Array:
    rows, columns = (
        numbers(queries.start + band.first, queries.stop - queries.start),
        numbers(keys.start, keys.stop - keys.start),
    )
    shape = (rows.size, columns.size)
    return jnp.abs(broadcast(columns[None], shape) - broadcast(rows[:, None], shape)).astype(dtype)


def _scores(s: Array, heads: Heads, bias: Array | None, far: Array | None, how: Any) -> tuple[Array, Array | None]:
    """(scores, derivative of the soft cap or None) of products s, already scaled.  s and bias: (c, q, k); far: (q, k)."""
    slope = None
    if how.softcap is not None:
        u = jnp.tanh(s / how.softcap)
        s, slope = how.softcap * u, (1 - u) * (1 + u)
    if heads.slopes is not None and far is not None:
        s = s - broadcast(heads.slopes.astype(s.dtype)[:, None, None], s.shape) * broadcast(far[None], s.shape)
    return (s if bias is None else s + broadcast(bias.astype(s.dtype), s.shape)), slope


def _chunks(f: Any, products: int, carry: Any, arrays: Any) -> Any:
    """carry, f's = scan of f(carry, arrays) over chunks of heads, as many at a time as the limit allows."""
    heads = jax.tree.leaves(arrays)[0].shape[0]
    size = max((c for c in range(1, heads + 1) if heads % c == 0 and c * products <= PRODUCTS), default=1)
    if heads <= size:
        return f(carry, arrays)
    chunks = jax.tree.map(lambda x: x.reshape(heads // size, size, *x.shape[1:]), arrays)
    carry, found = lax.scan(f, carry, chunks)
    return carry, jax.tree.map(lambda x: x.reshape(heads, *x.shape[2:]), found)


def _add_bias(ct: Array, ct_s: Array, of: Any, queries: slice, keys: slice) -> Array:
    """ct: (how many, s, t), each of the last two perhaps 1, with ct_s: (c, q, k) added at the numbers `of`: (c,).

    A bias was copied to heads, and along what it lacks of queries and keys: the transpose of a copy is a sum.
    """
    axes = tuple(i for i in (1, 2) if ct.shape[i] == 1)
    where = (of, *(slice(None) if i in axes else part for i, part in ((1, queries), (2, keys))))
    return ct.at[where].add(ct_s.sum(axes, keepdims=True))


def _at(x: Array | None, of: Array | None, queries: slice, keys: slice) -> Array | None:
    return None if x is None else _part(x, queries, keys)[of]


def scored_fwd(q: Array, k: Array, v: Array, extras: Any, *, how: Any, kept: Any) -> tuple[Array, Array]:
    """(y, log z): what is new of what `nnjax.layers.attending.scored.scored_fwd` gives.

    kept(keys, (c, s, t)): the mask of dropout, of each head.
    """
    groups, (s, n), g = q.shape[:3], (q.shape[3], k.shape[2]), q.shape[2]
    band, (heads, shared) = band_of(how, s, n), _split(extras, groups)
    rows = rows_of(s, n, ROW, band.left, band.right, band.first)

    def chunk(carry, arrays):
        q, kt, v, spoils, heads = arrays
        ys, log_zs = [], []
        drop = None if heads.key is None else kept(heads.key, (q.shape[0], s, n))
        for queries, keys in rows:
            if keys.start == keys.stop:  # who sees no key
                ys.append(jnp.zeros_like(v, shape=(q.shape[0], queries.stop - queries.start, v.shape[-1])))
                log_zs.append(jnp.full_like(ys[-1][..., 0], -jnp.inf, dtype=wide(q)))
                continue
            bias, mask = _at(shared.bias, heads.bias, queries, keys), _at(shared.mask, heads.mask, queries, keys)
            seen = _seen(heads, mask, bias, queries, keys, band)
            far = None if heads.slopes is None else _distance(queries, keys, band, wide(q))
            x, _ = _scores(contract("cqd,cdk->cqk", q[:, queries], kt[:, :, keys]), heads, bias, far, how)
            x = hide(x + 0 * x + broadcast(spoils[:, None, keys], x.shape), seen)  # NaN where a query sees what is not finite
            low = jnp.full_like(x[..., 0], float(jnp.finfo(x.dtype).min) / 2)
            top = jnp.maximum(low, along(jnp.max, x))
            e = clear(exp_less(x, top), seen)
            z = along(jnp.sum, e)
            e = e if drop is None else jnp.where(drop[:, queries, keys], e * (1 / (1 - how.rate)), jnp.zeros_like(e))
            y = contract("cqk,ckd->cqd", e.astype(v.dtype), v[:, keys])
            ys.append((y / broadcast(jnp.where(z == 0, jnp.ones_like(z), z)[..., None], y.shape)).astype(q.dtype))
            log_zs.append(top + jnp.log(z))  # -inf for who sees no key
        return carry, (jnp.concatenate(ys, 1), jnp.concatenate(log_zs, 1))

    arrays = by_head(q * how.scale), t(copied(k, g)), copied(finite(v), g), copied(told(v), g), heads
    _, (y, log_z) = _chunks(chunk, min(ROW, s) * n, None, arrays)
    return y.reshape(*q.shape[:-1], v.shape[-1]), log_z.reshape(q.shape[:-1])


def scored_bwd(residuals: Any, cts: Any, *, how: Any, kept: Any) -> Any:
    """(ct_q, ct_k, ct_v, ct_bias, ct_slopes).  Products are formed with the keys first: sᵀ = k qᵀ."""
    q, k, v, extras, y, log_z = residuals
    ct_y, ct_log_z = cts
    groups, (s, n), g = q.shape[:3], (q.shape[3], k.shape[2]), q.shape[2]
    band, (heads, shared) = band_of(how, s, n), _split(extras, groups)
    rows = rows_of(n, s, ROW, band.right, band.left, -band.first)
    delta = ct_y.astype(log_z.dtype) * y.astype(log_z.dtype)  # pᵀ ct_p = yᵀ ct_y; the gradient of log z is p itself
    delta = contract("bhgsd,d->bhgs", delta, jnp.ones_like(delta, shape=delta.shape[-1:])) - ct_log_z

    def chunk(ct_bias, arrays):
        q, k, v, heads, log_z, delta, ct_y = arrays
        qt, kt, ct_yt = t(q), t(k), t(ct_y)
        ct_qt, ct_ks, ct_vs = jnp.zeros_like(qt, dtype=wide(qt)), [], []
        ct_slopes = None if heads.slopes is None else jnp.zeros_like(log_z[:, 0])
        drop = None if heads.key is None else t(kept(heads.key, (q.shape[0], s, n)))

        def dropped(p, keys, queries):
            return p if drop is None else jnp.where(drop[:, keys, queries], p * (1 / (1 - how.rate)), jnp.zeros_like(p))

        for keys, queries in rows:
            if queries.start == queries.stop:
                ct_ks.append(jnp.zeros_like(k[:, keys], dtype=wide(k)))
                ct_vs.append(jnp.zeros_like(v[:, keys], dtype=wide(v)))
                continue
            bias, mask = _at(shared.bias, heads.bias, queries, keys), _at(shared.mask, heads.mask, queries, keys)
            seen = _seen(heads, mask, bias, queries, keys, band)
            seen = None if seen is None else t(seen)
            far = None if heads.slopes is None else _distance(queries, keys, band, log_z.dtype).T
            x, slope = _scores(
                contract("ckd,cdq->ckq", k[:, keys], qt[:, :, queries]), heads, None if bias is None else t(bias), far, how
            )
            p = clear(jnp.exp(x - broadcast(log_z[:, None, queries], x.shape)), seen)
            ct_vs.append(
                contract("ckq,cqd->ckd", dropped(p, keys, queries).astype(v.dtype), ct_y[:, queries])
            )  # p v summed over k
            ct_p = dropped(contract("ckd,cdq->ckq", v[:, keys], ct_yt[:, :, queries]), keys, queries)
            # softmax's Jacobian diag(p) - p pᵀ is its own transpose
            ct_s = clear(p * (ct_p - broadcast(delta[:, None, queries], p.shape)), seen)
            if ct_bias is not None:
                ct_bias = _add_bias(ct_bias, t(ct_s), heads.bias, queries, keys)
            if ct_slopes is not None and far is not None:
                ct_slopes = ct_slopes - (ct_s * broadcast(far[None], ct_s.shape)).sum((1, 2))
            ct_s = (ct_s if slope is None else clear(ct_s * slope, seen)).astype(q.dtype)
            ct_ks.append(contract("ckq,cqd->ckd", ct_s, q[:, queries]))  # forward, q k summed over features d; back, over q
            ct_qt = ct_qt.at[:, :, queries].add(contract("cdk,ckq->cdq", kt[:, :, keys], ct_s))  # and over keys k
        return ct_bias, (t(ct_qt), jnp.concatenate(ct_ks, 1), jnp.concatenate(ct_vs, 1), ct_slopes)

    arrays = (
        by_head(finite(q) * how.scale), copied(finite(k), g), copied(finite(v), g), heads,
        *(by_head(x) for x in (log_z, delta, ct_y)),
    )  # fmt: skip
    ct_bias = None if shared.bias is None else jnp.zeros_like(shared.bias, dtype=wide(q))
    ct_bias, (ct_q, ct_k, ct_v, ct_slopes) = _chunks(chunk, min(ROW, n) * s, ct_bias, arrays)
    # a key was copied to g heads: sum over them
    ct_k, ct_v = (ct.reshape(*groups, *ct.shape[1:]).sum(2) for ct in (ct_k, ct_v))
    if ct_bias is not None:
        ct_bias = ct_bias.reshape(extras.bias.shape).astype(extras.bias.dtype)
    if ct_slopes is not None:
        ct_slopes = ct_slopes.reshape(groups).sum(0).astype(extras.slopes.dtype)
    ct_q = (ct_q.reshape(q.shape) * how.scale).astype(q.dtype)
    return ct_q, ct_k.astype(k.dtype), ct_v.astype(v.dtype), ct_bias, ct_slopes
