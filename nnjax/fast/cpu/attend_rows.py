"""Attention for a moderate number of keys: forward a few rows of queries at a time, with every key that they see; backward
a few rows of keys, with every query that sees them.

Rows are slices of static size, so causal rows stop where nothing more is seen. Every product has the form a @ b, the only
one with fast kernels in XLA on CPUs, so each operand is transposed once. Heads go in chunks small enough that the products
of a row stay in cache. Hidden numbers have no effect: a score with a number that is not finite is NaN, a hidden score is
the lowest number whatever it was, and values with weight 0 are made finite.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ...linear import broadcast, wide
from ..attend_hidden import clear, finite, hide, kept, numbers, told, visible
from ..attend_products import contract, exp_less

LANES = 16
PRODUCTS = 1 << 17  # of queries and keys at a time: from the time and memory of the bench cases `gpt` and `attention`


def along(reduce, x):
    """reduce(x, axis=-1), 16 lanes at a time if they divide it: XLA's own loop along a row takes one number at a time."""
    if x.shape[-1] % LANES == 0:
        x = reduce(x.reshape(*x.shape[:-1], x.shape[-1] // LANES, LANES), -2)
    return reduce(x, -1)


def _rows(many: int, others: int, n: int, causal: bool, keys: bool) -> list[tuple[slice, slice]]:
    """(n queries, the keys that they see) of every row, as slices; keys: (n keys, the queries that see them)."""
    stops = [(start, min(start + n, many)) for start in range(0, many, n)]
    if keys:
        return [(slice(start, stop), slice(min(start, others) if causal else 0, others)) for start, stop in stops]
    return [(slice(start, stop), slice(0, min(stop, others) if causal else others)) for start, stop in stops]


def _in_chunks(f: Callable[..., Any], products: int, arrays: tuple[Any, ...]) -> Any:
    """f of the arrays, each (heads, ...) or None, for as many heads at a time as the limit allows; products: of one head."""
    heads = arrays[0].shape[0]
    size = max((c for c in range(1, heads + 1) if heads % c == 0 and c * products <= PRODUCTS), default=1)
    if heads <= size:
        return f(*arrays)
    chunks = tuple(None if x is None else x.reshape(heads // size, size, *x.shape[1:]) for x in arrays)
    _, found = lax.scan(lambda _, chunk: (None, f(*chunk)), None, chunks)
    return tuple(x.reshape(heads, *x.shape[2:]) for x in found)


def by_head(x: Array) -> Array:
    """(b, h, g, s, ...) as (b h g, s, ...)."""
    return x.reshape(math.prod(x.shape[:3]), *x.shape[3:])


def copied(x: Array, g: int) -> Array:
    """(b, h, t, ...) likewise, each head copied to the g heads of queries that it serves."""
    return by_head(broadcast(x[:, :, None], (*x.shape[:2], g, *x.shape[2:])))


def t(x: Array) -> Array:
    return jnp.swapaxes(x, 1, 2)


def _keep_by_head(keep: Array | None, groups: tuple[int, ...]) -> Array | None:
    return None if keep is None else by_head(broadcast(keep[:, None, None], (*groups, keep.shape[1])))


def _seen(keep: Array | None, queries: slice, keys: slice, causal: bool) -> Array | None:
    """Which of these keys these queries may look at, (c, q, k) or (1, q, k), or None."""
    keep = None if keep is None else keep[:, keys]
    rows, columns = (numbers(s.start, s.stop - s.start) for s in (queries, keys))
    seen = visible(rows, columns, keep, causal)
    return None if seen is None else seen[:, 0, 0]


def rows_fwd(q: Array, k: Array, v: Array, keep: Array | None, *, causal: bool, block: int) -> tuple[Array, Array]:
    """(y, log_z): the new arrays in the result of `nnjax.layers.attend.attend_fwd`, for the same arguments."""
    g, d = q.shape[2], q.shape[-1]
    k, v = kept(k, keep), kept(v, keep)
    spoils = told(v) if causal else None  # NaN for the values that are not finite
    rows = _rows(q.shape[-2], k.shape[-2], block, causal, keys=False)

    def chunk(q, kt, v, keep, spoils):
        ys, log_zs = [], []
        for queries, keys in rows:
            s = contract("cqd,cdk->cqk", q[:, queries], kt[:, :, keys])
            if spoils is not None:  # infinite scores are NaN too
                s = s + 0 * s + broadcast(spoils[:, None, keys], s.shape)
            s = hide(s, _seen(keep, queries, keys, causal))
            # Half the lowest number is below every score and above the hidden ones: a query without a key has exp(...) = 0.
            low = jnp.full_like(s[..., 0], float(jnp.finfo(s.dtype).min) / 2)
            # y does not depend on the maximum, but exp would overflow without it
            top = lax.stop_gradient(jnp.maximum(low, along(jnp.max, s)))
            e = exp_less(s, top)
            z = along(jnp.sum, e)
            z = jnp.where(z == 0, jnp.ones_like(z), z)
            y = contract("cqk,ckd->cqd", e.astype(v.dtype), v[:, keys])
            ys.append((y / broadcast(z[..., None], y.shape)).astype(q.dtype))
            log_zs.append(top + jnp.log(z))
        return jnp.concatenate(ys, 1), jnp.concatenate(log_zs, 1)

    arrays = (
        by_head(q * (1 / math.sqrt(d))), t(copied(k, g)), copied(finite(v) if causal else v, g),
        _keep_by_head(keep, q.shape[:3]), None if spoils is None else copied(spoils, g),
    )  # fmt: skip
    y, log_z = _in_chunks(chunk, min(block, q.shape[-2]) * k.shape[-2], arrays)
    return y.reshape(q.shape), log_z.reshape(q.shape[:-1])


def rows_bwd(residuals: Any, ct_y: Array, *, causal: bool, block: int) -> tuple[Array, Array, Array]:
    """Like `nnjax.layers.attend.attend_bwd`.  Products are formed with the keys first: sᵀ = k qᵀ."""
    q, k, v, keep, y, log_z = residuals
    g, scale = q.shape[2], 1 / math.sqrt(q.shape[-1])
    # pᵀ ct_p = yᵀ ct_y, so delta replaces it. A product with ones is the faster sum over so few features.
    delta = ct_y.astype(log_z.dtype) * y.astype(log_z.dtype)
    delta = contract("bhgsd,d->bhgs", delta, jnp.ones_like(delta, shape=delta.shape[-1:]))
    k, v = kept(k, keep), kept(v, keep)
    q, k, v = (finite(x) if causal else x for x in (q * scale, k, v))  # queries that see other numbers have log_z = NaN
    rows = _rows(k.shape[-2], q.shape[-2], block, causal, keys=True)

    def chunk(q, k, v, keep, log_z, delta, ct_y):
        qt, kt, ct_yt = t(q), t(k), t(ct_y)
        ct_qt, ct_ks, ct_vs = jnp.zeros_like(qt, dtype=wide(qt)), [], []
        for keys, queries in rows:
            seen = _seen(keep, queries, keys, causal)
            seen = None if seen is None else t(seen)
            s = contract("ckd,cdq->ckq", k[:, keys], qt[:, :, queries])
            p = clear(jnp.exp(s - broadcast(log_z[:, None, queries], s.shape)), seen)
            ct_vs.append(contract("ckq,cqd->ckd", p.astype(v.dtype), ct_y[:, queries]))  # forward, p v summed over keys k
            ct_p = contract("ckd,cdq->ckq", v[:, keys], ct_yt[:, :, queries])
            # softmax's Jacobian diag(p) - p pᵀ is its own transpose
            ct_s = clear(p * (ct_p - broadcast(delta[:, None, queries], p.shape)), seen).astype(q.dtype)
            ct_ks.append(contract("ckq,cqd->ckd", ct_s, q[:, queries]))  # forward, q k summed over features d; back, over q
            ct_qt = ct_qt.at[:, :, queries].add(contract("cdk,ckq->cdq", kt[:, :, keys], ct_s))  # and over keys k
        return t(ct_qt), jnp.concatenate(ct_ks, 1), jnp.concatenate(ct_vs, 1)

    arrays = (
        by_head(q), copied(k, g), copied(v, g), _keep_by_head(keep, q.shape[:3]),
        *(by_head(x) for x in (log_z, delta, ct_y)),
    )  # fmt: skip
    ct_q, ct_k, ct_v = _in_chunks(chunk, min(block, k.shape[-2]) * q.shape[-2], arrays)
    # a key was copied to g heads: sum over them
    ct_k, ct_v = (ct.reshape(*q.shape[:3], *ct.shape[1:]).sum(2) for ct in (ct_k, ct_v))
    return (ct_q.reshape(q.shape) * scale).astype(q.dtype), kept(ct_k.astype(k.dtype), keep), kept(ct_v.astype(v.dtype), keep)
