"""Attention of one sequence to another: queries of x, keys and values of a memory."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ...errors import describe, expect_flag, expect_float, expect_params, expect_positive, expect_same_dtype
from ...layer import Layer
from ...leaf import leaf, outline, outlined
from ..attention import join_heads, join_heads_t
from ..dense import DenseParams, dense, dense_apply, dense_bwd, dense_fwd
from .options import Sizes, extras, scoring
from .scored import Extras, Scoring, fast_bwd, fast_fwd, scored_apply, scored_bwd, scored_fwd


class CrossAttentionParams(NamedTuple):
    """q: (n, n); kv: (m, 2 kv_heads n / heads), the columns of the keys, then of the values; out: (n, n).
    See `cross_attention`."""

    q: DenseParams
    kv: DenseParams
    out: DenseParams


class Options(NamedTuple):
    """What the factory was told. n, m: features of x and of the memory."""

    n: int
    m: int
    heads: int
    kv_heads: int
    mask: bool
    how: Scoring


def _queries(columns: Array, opts: Options) -> Array:
    """(b, s, n) -> (b, kv_heads, g, s, d). Entries only change places, and `join_heads` puts them back."""
    return join_heads_t(columns, (opts.kv_heads, opts.heads // opts.kv_heads))


def _keys_values(columns: Array, opts: Options) -> tuple[Array, Array]:
    """(b, t, 2 kv_heads d) -> keys and values, (b, kv_heads, t, d) each. Its transpose is `_keys_values_t`."""
    b, t, _ = columns.shape
    both = columns.reshape(b, t, 2, opts.kv_heads, opts.n // opts.heads).transpose(2, 0, 3, 1, 4)
    return both[0], both[1]


def _keys_values_t(ct_k: Array, ct_v: Array) -> Array:
    b, h, t, d = ct_k.shape
    return jnp.stack((ct_k, ct_v)).transpose(1, 3, 0, 2, 4).reshape(b, t, 2 * h * d)


def _expect(params: Any, x: Any, opts: Options) -> tuple[Array, Array, Extras, tuple[int, ...]]:
    """(x as (b, s, n), memory as (b, t, m), the mask, the leading axes)."""
    who, entries = "cross_attention", 3 if opts.mask else 2
    expect_params(who, params, CrossAttentionParams)
    if not isinstance(x, tuple) or len(x) != entries:
        named = "(x, memory, mask)" if opts.mask else "(x, memory)"
        raise TypeError(f"{who}: x must be the tuple {named}, got {describe(x)}; pass {entries} arrays.")
    x, memory, *mask = x
    for name, a, n in (("x", x, opts.n), ("memory", memory, opts.m)):
        expect_float(who, name, a)
        if a.ndim < 2 or a.shape[-1] != n or a.shape[-2] < 1:
            raise ValueError(
                f"{who}: {name} must have shape (..., positions, {n}) with at least one position, got {describe(a)}; "
                f"pass rows of {n} features, or make the layer for as many as it has."
            )
    expect_same_dtype(who, "memory", memory, "x", x)
    lead = x.shape[:-2]
    if memory.shape[:-2] != lead:
        raise ValueError(f"{who}: x and memory must have the same leading axes, got {describe(x)} and {describe(memory)}.")
    sizes = Sizes(lead, x.shape[-2], memory.shape[-2], opts.heads, opts.kv_heads)
    found = extras(who, sizes, mask=mask[0] if mask else None)
    b = math.prod(lead)
    return x.reshape(b, *x.shape[-2:]), memory.reshape(b, *memory.shape[-2:]), found, lead


def cross_attention_apply(params: Any, x: Any, *, key: Any = None, opts: Options) -> Array:
    """y = join(attend(q, k, v)) W_out + b_out,  q = split(x W_q + b_q),  (k, v) = split(memory W_kv + b_kv).

    x is (x, memory): (..., s, n) and (..., t, m); y: (..., s, n). With `mask` it is (x, memory, mask), mask bool (..., t), or
    (..., heads, s, t) with each axis of that size or 1; False hides, and a position that may look at nothing gives b_out.
    """
    x, memory, found, lead = _expect(params, x, opts)
    q = _queries(dense_apply(params.q, x), opts)
    k, v = _keys_values(dense_apply(params.kv, memory), opts)
    y, _ = scored_apply(q, k, v, found, how=opts.how)
    return dense_apply(params.out, join_heads(y)).reshape(*lead, *x.shape[-2:])


def cross_attention_fwd(params: Any, x: Any, *, key: Any = None, opts: Options, attend: Any = scored_fwd) -> Any:
    x, memory, found, lead = _expect(params, x, opts)
    columns, q_residuals = dense_fwd(params.q, x)
    both, kv_residuals = dense_fwd(params.kv, memory)
    (y, _), attend_residuals = attend(_queries(columns, opts), *_keys_values(both, opts), found, how=opts.how)
    y, out_residuals = dense_fwd(params.out, join_heads(y))
    y = y.reshape(*lead, *y.shape[-2:])
    return y, (q_residuals, kv_residuals, attend_residuals, out_residuals, outline(y))


def cross_attention_bwd(residuals: Any, ct_y: Array, *, opts: Options, attend: Any = scored_bwd) -> Any:
    q_residuals, kv_residuals, attend_residuals, out_residuals, _ = residuals
    lead, (x, memory) = ct_y.shape[:-2], (q_residuals[1], kv_residuals[1])
    ct_out, ct_y = dense_bwd(out_residuals, ct_y.reshape(x.shape))
    log_z = attend_residuals[-1]
    ct_q, ct_k, ct_v, _ = attend(attend_residuals, (_queries(ct_y, opts), jnp.zeros_like(log_z)), how=opts.how)
    ct_q_params, ct_x = dense_bwd(q_residuals, join_heads(ct_q))
    ct_kv, ct_memory = dense_bwd(
        kv_residuals, _keys_values_t(ct_k, ct_v)
    )  # the memory went two ways: to the keys and the values
    cts = ct_x.reshape(*lead, *ct_x.shape[-2:]), ct_memory.reshape(*lead, *memory.shape[-2:])
    return CrossAttentionParams(ct_q_params, ct_kv, ct_out), (*cts, None) if opts.mask else cts


def cross_attention(
    n: int,
    m: int,
    heads: int,
    *,
    kv_heads: int | None = None,
    mask: bool = False,
    scale: float | None = None,
    softcap: float | None = None,
    bias: bool = True,
    init: Callable[..., Array] | None = None,
) -> Layer[Array]:
    """Multi-head attention of x: (..., s, n) to a memory: (..., t, m), given as (x, memory).  Vaswani et al. 2017.

    kv_heads < heads shares each head of keys and values. mask: x is (x, memory, mask), see `cross_attention_apply`. scale:
    1 / sqrt(n / heads) by default; softcap: the bound of the scores. init makes the three matrices, by default as `dense` does.
    Raises ValueError where heads do not divide n, or kv_heads the heads.

    >>> layer = nnjax.cross_attention(16, 6, 4)
    >>> x, memory = jnp.ones((2, 9, 16)), jnp.ones((2, 5, 6))
    >>> layer.apply(layer.init(jax.random.key(0)), (x, memory)).shape
    (2, 9, 16)
    """
    expect_flag("cross_attention", mask=mask, bias=bias)
    n, m, heads = expect_positive("cross_attention", n=n, m=m, heads=heads)
    (kv_heads,) = expect_positive("cross_attention", kv_heads=heads if kv_heads is None else kv_heads)
    if n % heads or heads % kv_heads:
        raise ValueError(
            f"cross_attention: heads must divide n, and kv_heads must divide heads, got n={n}, heads={heads}, "
            f"kv_heads={kv_heads}."
        )
    d = n // heads
    opts = Options(n, m, heads, kv_heads, mask, scoring("cross_attention", d, causal=None, scale=scale, softcap=softcap))
    parts = [dense(*sizes, bias=bias, init=init) for sizes in ((n, n), (m, 2 * kv_heads * d), (n, n))]

    def init_params(key):
        return CrossAttentionParams(*(part.init(k) for part, k in zip(parts, jax.random.split(key, 3))))

    fwd, bwd = partial(cross_attention_fwd, opts=opts), partial(cross_attention_bwd, opts=opts)
    return leaf(
        f"cross_attention({n}, {m}, {heads})", init_params, partial(cross_attention_apply, opts=opts), fwd, bwd,
        lambda residuals: outlined(residuals[-1]), fast=(partial(fwd, attend=fast_fwd), partial(bwd, attend=fast_bwd)),
    )  # fmt: skip
