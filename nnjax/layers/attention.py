"""Multi-head self-attention: two dense maps around the attention of `attend`."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..errors import describe, expect_flag, expect_float, expect_params, expect_positive
from ..layer import Layer
from ..leaf import leaf, outline, outlined
from ..linear import broadcast, rotate, rotate_t
from .attend import attend_apply, attend_bwd, attend_fwd, fast_bwd, fast_fwd
from .attending.options import Sizes, asks_for_more, extras, scoring
from .attending.rotary import THETA, Rotary, rotary, turned
from .attending.scored import Extras, Scoring, scored_apply, scored_bwd, scored_fwd
from .attending.scored import fast_bwd as scored_fast_bwd
from .attending.scored import fast_fwd as scored_fast_fwd
from .dense import DenseParams, dense, dense_apply, dense_bwd, dense_fwd


class AttentionParams(NamedTuple):
    """qkv: (n, (heads + 2 kv_heads) d), the columns of the queries, then the keys, then the values; out: (heads d, n).

    See `attention`.
    """

    qkv: DenseParams
    out: DenseParams


class Options(NamedTuple):
    """The options of the factory. d: features of a head; how: what is done to the scores."""

    n: int
    heads: int
    kv_heads: int
    d: int
    causal: bool
    rope: Rotary | None
    key_mask: bool
    segments: bool
    alibi: bool
    how: Scoring


def expect_attention(
    n: int, heads: Any, kv_heads: Any = None, causal: bool = True, rope: Any = False, key_mask: Any = False,
    segments: Any = False, alibi: Any = False, rope_theta: Any = THETA, rope_scaling: Any = None, head_dim: Any = None,
    **scores: Any,
) -> Options:  # fmt: skip
    """The arguments as Options; scores: those of `scoring`. Raises ValueError if they do not fit together."""
    expect_flag("attention", causal=causal, rope=rope, key_mask=key_mask, segments=segments, alibi=alibi)
    kv_heads = heads if kv_heads is None else kv_heads
    n, heads, kv_heads = expect_positive("attention", n=n, heads=heads, kv_heads=kv_heads)
    if head_dim is None and n % heads:
        raise ValueError(f"attention: heads must divide n, got n={n}, heads={heads}; pass e.g. {math.gcd(n, heads)}, "
                         "or head_dim.")  # fmt: skip
    if heads % kv_heads:
        raise ValueError(
            f"attention: kv_heads must divide heads, got heads={heads}, kv_heads={kv_heads}; pass {math.gcd(heads, kv_heads)}."
        )
    (d,) = expect_positive("attention", head_dim=n // heads if head_dim is None else head_dim)
    if not rope and (rope_theta != THETA or rope_scaling is not None):
        raise ValueError(
            f"attention: rope_theta and rope_scaling say how rope turns, got {rope_theta!r} and {rope_scaling!r} without it; "
            "add rope=True, or leave them out."
        )
    turns = rotary("attention", d, rope_theta, rope_scaling) if rope else None
    how = scoring("attention", d, causal="start" if causal else None, **scores)
    return Options(n, heads, kv_heads, d, causal, turns, key_mask, segments, alibi, how)


def split_heads(x: Array, opts: Options) -> tuple[Array, Array, Array]:
    """(b, s, columns of q, k, v) -> q: (b, kv_heads, g, s, d), k and v: (b, kv_heads, s, d), g = heads / kv_heads.

    Entries only move: the transpose puts them back (`split_heads_t`).
    """
    b, s, columns = x.shape
    h, d = opts.kv_heads, opts.d
    g = opts.heads // h
    x = x.reshape(b, s, columns // d, d).transpose(0, 2, 1, 3)
    return x[:, : h * g].reshape(b, h, g, s, d), x[:, h * g : h * g + h], x[:, h * g + h :]


def split_heads_t(ct_q: Array, ct_k: Array, ct_v: Array) -> Array:
    """Cotangents of q, k, v -> the cotangent of the columns, (b, s, columns)."""
    b, h, g, s, d = ct_q.shape
    ct = jnp.concatenate((ct_q.reshape(b, h * g, s, d), ct_k, ct_v), 1)
    return ct.transpose(0, 2, 1, 3).reshape(b, s, (g + 2) * h * d)


def join_heads(y: Array) -> Array:
    """(b, h, g, s, d) -> (b, s, h g d). Its transpose is `join_heads_t`."""
    b, h, g, s, d = y.shape
    return y.transpose(0, 3, 1, 2, 4).reshape(b, s, h * g * d)


def join_heads_t(ct: Array, heads: tuple[int, int]) -> Array:
    """(b, s, h g d) -> (b, h, g, s, d), for heads = (h, g)."""
    b, s, n = ct.shape
    return ct.reshape(b, s, *heads, n // (heads[0] * heads[1])).transpose(0, 2, 3, 1, 4)


def _shape(x) -> tuple[int, ...]:
    """The shape of x, or of the x in (x, mask)."""
    return getattr(x[0] if isinstance(x, tuple) and x else x, "shape", ())


def _expect(params, x, opts: Options, key) -> tuple[Array, Any]:
    """(x as (b, s, n), its mask of keys, (b, s) or None, or `Extras` where more is asked for than `attend` does)."""
    expect_params("attention", params, AttentionParams)
    names = ("x", *(name for name, takes in (("mask", opts.key_mask), ("segments", opts.segments)) if takes))
    if len(names) > 1:
        if not isinstance(x, tuple) or len(x) != len(names):
            raise TypeError(
                f"attention: x must be the tuple ({', '.join(names)}), as the layer was made to take, got {describe(x)}; "
                f"pass {'both' if len(names) == 2 else 'all of them'}."
            )
        given = dict(zip(names, x))
    else:
        given = {"x": x}
    x = given["x"]
    expect_float("attention", "x", x)
    if x.ndim < 2 or x.shape[-1] != opts.n or x.shape[-2] < 1:
        raise ValueError(
            f"attention: x must have shape (..., positions, {opts.n}) with at least one position, got {describe(x)}; "
            f"pass rows of {opts.n} features, or make the layer with as many as x has."
        )
    s, d, b = x.shape[-2], opts.d, math.prod(x.shape[:-2])
    sizes = Sizes(x.shape[:-2], s, s, opts.heads, opts.kv_heads)
    slopes = jnp.exp2(-8 / opts.heads * jnp.arange(1, opts.heads + 1, dtype=jnp.float32)) if opts.alibi else None
    drawn = key if opts.how.rate else None
    found = extras("attention", sizes, mask=given.get("mask"), segments=given.get("segments"), slopes=slopes, key=drawn)
    how = opts.how if drawn is not None else opts.how._replace(rate=0.0)
    simple = None if found.mask is None else found.mask.reshape(-1, s)
    return x.reshape(b, *x.shape[-2:]), found if asks_for_more(how, found, d, d) else simple


def attention_apply(params: Any, x: Array, *, key: Any = None, opts: Options) -> Array:
    """y = join(attend(q, k, v)) W_out + b_out,  (q, k, v) = split(x W_qkv + b_qkv).  x, y: (..., s, n).

    With `rope` queries and keys are first turned by the angles of their positions. With `key_mask` x is (x, mask), mask
    bool (..., s), False for keys that are masked, or (..., heads, s, s), each axis of that size or 1, False where a query
    does not see a key; a position without a visible key gives b_out. With `segments` x is (x, segments), integers (..., s),
    and a position sees those with its own number; with both it is (x, mask, segments).
    Raises TypeError or ValueError for parameters, x or mask of another kind or shape.
    """
    shape, (x, more) = _shape(x), _expect(params, x, opts, key)
    q, k, v = split_heads(dense_apply(params.qkv, x), opts)
    if opts.rope:
        positions = jnp.arange(x.shape[1], dtype=jnp.int32)
        q, k = turned(rotate, q, positions, opts.rope), turned(rotate, k, positions, opts.rope)
    if isinstance(more, Extras):
        y, _ = scored_apply(q, k, v, more, how=opts.how)
    else:
        y = attend_apply(q, k, v, more, causal=opts.causal)
    return dense_apply(params.out, join_heads(y)).reshape(shape)


def attention_fwd(params: Any, x: Array, *, key: Any = None, opts: Options, by: Any = (attend_fwd, scored_fwd)) -> Any:
    (attend, scored), shape, (x, more) = by, _shape(x), _expect(params, x, opts, key)
    columns, qkv_residuals = dense_fwd(params.qkv, x)
    q, k, v = split_heads(columns, opts)
    if opts.rope:
        positions = jnp.arange(x.shape[1], dtype=jnp.int32)
        q, k = turned(rotate, q, positions, opts.rope), turned(rotate, k, positions, opts.rope)
    if isinstance(more, Extras):
        (y, _), (*attend_residuals, _, log_z) = scored(q, k, v, more, how=opts.how)
    else:
        y, (*attend_residuals, _, log_z) = attend(q, k, v, more, causal=opts.causal)
    y, out_residuals = dense_fwd(params.out, join_heads(y))
    return y.reshape(shape), (qkv_residuals, (*attend_residuals, log_z), out_residuals)


def attention_bwd(residuals: Any, ct_y: Array, *, opts: Options, by: Any = (attend_bwd, scored_bwd)) -> Any:
    qkv_residuals, attend_residuals, out_residuals = residuals  # the same five maps, transposed, in reverse order
    (attend, scored), shape, x = by, ct_y.shape, qkv_residuals[1]
    ct_out, ct_y = dense_bwd(out_residuals, ct_y.reshape(x.shape))
    *kept, log_z = attend_residuals
    groups = (opts.kv_heads, opts.heads // opts.kv_heads)
    kept = (*kept, join_heads_t(out_residuals[1], groups), log_z)  # the output of attend is kept once, as the input of out
    if isinstance(kept[3], Extras):
        ct_q, ct_k, ct_v, _ = scored(kept, (join_heads_t(ct_y, groups), jnp.zeros_like(log_z)), how=opts.how)
    else:
        ct_q, ct_k, ct_v = attend(kept, join_heads_t(ct_y, groups), causal=opts.causal)
    if opts.rope:
        positions = jnp.arange(x.shape[1], dtype=jnp.int32)
        ct_q, ct_k = turned(rotate_t, ct_q, positions, opts.rope), turned(rotate_t, ct_k, positions, opts.rope)
    ct_qkv, ct_x = dense_bwd(qkv_residuals, split_heads_t(ct_q, ct_k, ct_v))
    ct_x = ct_x.reshape(shape)
    others = (None,) * (opts.key_mask + opts.segments)
    return AttentionParams(ct_qkv, ct_out), (ct_x, *others) if others else ct_x


def attention_step(
    params: Any, x: Array, cache: tuple[Array, Array], t: Any, *, opts: Options
) -> tuple[Array, tuple[Array, Array]]:
    """(y, cache) of only the next position t, for generation: the result there of causal attention, with its window if any.

    x, y: (b, n); cache: keys and values (b, kv_heads, positions, d) of positions 0 ... t-1; the rest is ignored.
    """
    q, k, v = split_heads(dense_apply(params.qkv, x[:, None]), opts)
    if opts.rope:
        q, k = turned(rotate, q, t[None], opts.rope), turned(rotate, k, t[None], opts.rope)
    keys, values = (lax.dynamic_update_slice_in_dim(old, new, t, 2) for old, new in zip(cache, (k, v)))
    places, (left, _) = jnp.arange(keys.shape[2], dtype=jnp.int32), opts.how.window
    known = places <= t if left is None else (places <= t) & (places >= t - left)
    y = attend_apply(q, keys, values, broadcast(known[None], (x.shape[0], known.size)), causal=False)
    return dense_apply(params.out, join_heads(y))[:, 0], (keys, values)


def attention(
    n: int,
    heads: int,
    *,
    kv_heads: int | None = None,
    causal: bool = True,
    rope: bool = False,
    rope_theta: float = 10000.0,
    rope_scaling: Mapping[str, Any] | None = None,
    head_dim: int | None = None,
    key_mask: bool = False,
    segments: bool = False,
    alibi: bool = False,
    scale: float | None = None,
    softcap: float | None = None,
    window: int | tuple[int | None, int | None] | None = None,
    dropout: float = 0.0,
    bias: bool = True,
    out_bias: bool | None = None,
    init: Callable[..., Array] | None = None,
    init_out: Callable[..., Array] | None = None,
    kernel: bool = False,
) -> Layer[Array]:
    """Multi-head self-attention over the positions of x: (..., s, n), with heads of d features (Vaswani et al. 2017).

    d is n / heads, or head_dim. kv_heads < heads shares each head of keys and values among heads / kv_heads heads of queries
    (Ainslie et al. 2023): its cotangent is the sum of theirs. causal: position i sees positions 0 ... i. rope: rotary
    positions, which turn feature i of a head together with feature i + d/2 by position * rope_theta^(-2 i / d) (Su et al.
    2021), and whose transpose turns back; rope_scaling: as in `nnjax.ops.rotary`. key_mask, segments: x is a tuple, see
    `attention_apply`. alibi: a score falls with the distance of query and key, by 2^(-8 i / heads) for each place in head i =
    1 ... (Press et al. 2022). scale: of the scores, 1 / sqrt(d) by default; softcap: the c of c tanh(s / c). window: (left,
    right), how many positions before and behind its own a position sees, or an int for both. dropout: the share of weights
    set to 0, with a key alone. bias, out_bias: of queries, keys and values, and of the output, by default alike. init and
    init_out make the two matrices, by default as `dense` does. kernel: use Pallas kernels on a GPU or TPU, as in
    `nnjax.ops.attention`.
    Raises ValueError if heads does not divide n, kv_heads does not divide heads, or rope gets an odd d or a wrong scaling.

    >>> layer = nnjax.attention(16, 4)
    >>> layer.apply(layer.init(jax.random.key(0)), jnp.ones((2, 9, 16))).shape
    (2, 9, 16)
    """
    out_bias = bias if out_bias is None else out_bias
    expect_flag("attention", bias=bias, out_bias=out_bias, kernel=kernel)
    opts = expect_attention(
        n,
        heads,
        kv_heads,
        causal,
        rope,
        key_mask,
        segments,
        alibi,
        rope_theta,
        rope_scaling,
        head_dim,
        scale=scale,
        softcap=softcap,
        window=window,
        rate=dropout,
    )
    n, heads, d = opts.n, opts.heads, opts.d
    qkv = dense(n, (heads + 2 * opts.kv_heads) * d, bias=bias, init=init)
    out = dense(heads * d, n, bias=out_bias, init=init if init_out is None else init_out)

    def init_params(key):
        k_qkv, k_out = jax.random.split(key)
        return AttentionParams(qkv.init(k_qkv), out.init(k_out))

    def fwd(params, x, *, key=None, by=(attend_fwd, scored_fwd)):
        y, residuals = attention_fwd(params, x, key=key, opts=opts, by=by)
        return y, (residuals, outline(y))

    def bwd(residuals, ct_y, *, by=(attend_bwd, scored_bwd)):
        return attention_bwd(residuals[0], ct_y, opts=opts, by=by)

    fast_fwds = (partial(fast_fwd, kernel=kernel), scored_fast_fwd)
    fast_bwds = (partial(fast_bwd, kernel=kernel), scored_fast_bwd)
    return leaf(
        f"attention({n}, {heads})", init_params, partial(attention_apply, opts=opts), fwd, bwd,
        lambda residuals: outlined(residuals[1]), fast=(partial(fwd, by=fast_fwds), partial(bwd, by=fast_bwds)),
    )._replace(draws=opts.how.rate > 0)  # fmt: skip
