"""Attention for a moderate number of keys: a few rows of queries at a time, against every key that they see.

Rows are slices of static size, so causal rows stop at their own last query. Heads and batches go in chunks small enough
that the products of a row stay in cache.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ...linear import broadcast, wide
from ..attend_hidden import clear, hide, numbers, visible
from ..attend_products import contract, exp_less

LANES = 16
# Features of a head up to which ct_k and ct_v come out of their products with the features first: `gpt` (heads of 32) and
# `attention` (of 64) of the bench.
SMALL_HEAD = 32


def products_at_a_time(keys: int) -> int:
    """How many products may exist at a time: `gpt` and `attention` of the bench, in time and memory."""
    return 1 << 19 if keys <= 256 else 1 << 17


def _along(reduce, x):
    """reduce(x, axis=-1), 16 lanes at a time where they divide it: XLA's own loop along a row takes one by one."""
    if x.shape[-1] % LANES == 0:
        x = reduce(x.reshape(*x.shape[:-1], x.shape[-1] // LANES, LANES), -2)
    return reduce(x, -1)


def _rows(queries: int, keys: int, n: int, causal: bool) -> list[tuple[slice, slice]]:
    """(queries, keys that they see) of every row, as slices."""
    stops = [(start, min(start + n, queries)) for start in range(0, queries, n)]
    return [(slice(start, stop), slice(0, stop if causal else keys)) for start, stop in stops]


def _in_chunks(f, q, n: int, keys: int, arrays: tuple[Any, ...]):
    """f of the arrays, (b, h, ...) each or None, with as many of the b h heads at a time as the limit allows."""
    b, h, g = q.shape[:3]
    fits = [c for c in range(1, b * h + 1) if b * h % c == 0 and c * g * n * keys <= products_at_a_time(keys)]
    size = max(fits, default=1)
    chunks = tuple(None if x is None else x.reshape(b * h // size if size else 0, size, *x.shape[2:]) for x in arrays)
    if b * h == size:
        found = tuple(x[None] for x in f(*(None if x is None else x[0] for x in chunks)))
    else:
        _, found = lax.scan(lambda _, chunk: (None, f(*chunk)), None, chunks)
    return tuple(x.reshape(b, h, *x.shape[2:]) for x in found)


def _seen(keep, rows, keys, causal: bool):
    """Which of these keys these queries may look at, (c, 1, q, k) or (1, 1, q, k), or None."""
    keep = None if keep is None else keep[:, keys]
    seen = visible(numbers(rows.start, rows.stop - rows.start), numbers(0, keys.stop), keep, causal)
    return None if seen is None else seen[:, 0]


def _for_keys(products, rows):
    """sum over g and q of products[k] rows[d], (c, k, d).  products: (c, g, q, k), rows: (c, g, q, d)."""
    if rows.shape[-1] > SMALL_HEAD or rows.dtype != wide(rows):  # XLA has no such product of bfloat16 on CPUs
        return contract("cgqk,cgqd->ckd", products, rows)
    return jnp.swapaxes(contract("cgqd,cgqk->cdk", rows, products), 1, 2)


def _per_head(keep, h: int):
    return None if keep is None else broadcast(keep[:, None], (keep.shape[0], h, keep.shape[1]))


def rows_fwd(q: Array, k: Array, v: Array, keep: Array | None, *, causal: bool, block: int) -> Any:
    """(y, the logarithm of each query's denominator).  q: scaled, (b, h, g, s, d); k, v: (b, h, t, d); keep: (b, t).

    All of them as `attend_hidden` makes them, so that what is hidden does not matter.
    """
    rows = _rows(q.shape[-2], k.shape[-2], block, causal)

    def chunk(q, k, v, keep):
        ys, log_zs = [], []
        for queries, keys in rows:
            s = hide(contract("cgqd,ckd->cgqk", q[:, :, queries], k[:, keys]), _seen(keep, queries, keys, causal))
            # Half the least number is below every score and above the hidden ones: who sees no key has exp(...) = 0.
            low = jnp.full_like(s[..., 0], float(jnp.finfo(s.dtype).min) / 2)
            top = lax.stop_gradient(
                jnp.maximum(low, _along(jnp.max, s))
            )  # y does not depend on it, but without it exp overflows
            e = exp_less(s, top)
            z = _along(jnp.sum, e)
            z = jnp.where(z == 0, jnp.ones_like(z), z)
            y = contract("cgqk,ckd->cgqd", e.astype(v.dtype), v[:, keys])
            ys.append((y / broadcast(z[..., None], y.shape)).astype(q.dtype))
            log_zs.append(top + jnp.log(z))
        return jnp.concatenate(ys, 2), jnp.concatenate(log_zs, 2)

    return _in_chunks(chunk, q, min(block, q.shape[-2]), k.shape[-2], (q, k, v, _per_head(keep, k.shape[1])))


def rows_bwd(
    q: Array, k: Array, v: Array, keep: Array | None, log_z: Array, delta: Array, ct_y: Array, *, causal: bool, block: int
) -> Any:
    """(ct_q, ct_k, ct_v).  q, k, v, keep: as of `rows_fwd`; log_z: from there; delta: yᵀ ct_y of each query."""
    rows = _rows(q.shape[-2], k.shape[-2], block, causal)

    def chunk(q, k, v, keep, log_z, delta, ct_y):
        ct_qs, ct_k, ct_v = [], jnp.zeros_like(k, dtype=wide(k)), jnp.zeros_like(v, dtype=wide(v))
        for queries, keys in rows:
            s, seen = contract("cgqd,ckd->cgqk", q[:, :, queries], k[:, keys]), _seen(keep, queries, keys, causal)
            p = exp_less(hide(s, seen), log_z[:, :, queries])
            ct = ct_y[:, :, queries]
            ct_p = contract("cgqd,ckd->cgqk", ct, v[:, keys])  # forward summed p v over keys k; back, over features d
            # softmax's Jacobian diag(p) - p pᵀ is its own transpose; pᵀ ct_p = yᵀ ct_y, so delta stands for it.
            ct_s = clear(p * (ct_p - broadcast(delta[:, :, queries, None], p.shape)), seen).astype(q.dtype)
            ct_qs.append(contract("cgqk,ckd->cgqd", ct_s, k[:, keys]))
            # a key was copied to g heads and q queries: sum over both; rows see the first keys: add there
            ct_k = ct_k.at[:, keys].add(_for_keys(ct_s, q[:, :, queries]))
            ct_v = ct_v.at[:, keys].add(_for_keys(p.astype(v.dtype), ct))
        return jnp.concatenate(ct_qs, 2), ct_k, ct_v

    arrays = (q, k, v, _per_head(keep, k.shape[1]), log_z, delta, ct_y)
    return _in_chunks(chunk, q, min(block, q.shape[-2]), k.shape[-2], arrays)
