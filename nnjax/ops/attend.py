"""Attention inside anyone's `jax.grad`."""

import math
from functools import lru_cache, partial
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
from jax import Array

from ..errors import describe, expect_flag, expect_float, expect_same_dtype, expect_shape
from ..layers.attend import attend_apply, fast_bwd, fast_fwd
from ..layers.attending import scored
from ..layers.attending.options import Causal, Sizes, asks_for_more, expect_causal, extras, scoring
from ..trees.modes import in_both_modes
from ..trees.varying import together

WHO = "ops.attention"


@lru_cache
def _attend(causal: bool, kernel: bool) -> Any:
    """(q, k, v, keep) -> y."""

    @jax.custom_vjp
    def _attend(q, k, v, keep):
        return attend_apply(q, k, v, keep, causal=causal)

    fwd = partial(fast_fwd, causal=causal, kernel=kernel)

    def bwd(residuals, ct_y):
        return (*fast_bwd(residuals, ct_y, causal=causal, kernel=kernel), None)

    _attend.defvjp(fwd, bwd)
    return in_both_modes(_attend, fwd, bwd, WHO)


@lru_cache
def _scored(how: scored.Scoring) -> Any:
    """(q, k, v, extras) -> (y, log z)."""

    @jax.custom_vjp
    def _scored(q, k, v, extras):
        return scored.scored_apply(q, k, v, extras, how=how)

    fwd, bwd = partial(scored.fast_fwd, how=how), partial(scored.fast_bwd, how=how)
    _scored.defvjp(fwd, bwd)
    return in_both_modes(_scored, fwd, bwd, WHO)


def _expect_qkv(q, k, v) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        expect_float("ops.attention", name, x)
        if x.ndim < 3 or x.shape[-3] < 1:
            raise ValueError(
                f"ops.attention: {name} must have shape (..., positions, heads, d) with at least one position, "
                f"got {describe(x)}; add the axis that is missing."
            )
    expect_same_dtype("ops.attention", "k", k, "q", q)
    expect_same_dtype("ops.attention", "v", v, "q", q)
    expect_shape("ops.attention", "v", v, (*k.shape[:-1], v.shape[-1]))
    if k.shape[:-3] != q.shape[:-3] or k.shape[-1] != q.shape[-1] or k.shape[-2] < 1 or q.shape[-2] % k.shape[-2]:
        raise ValueError(
            "ops.attention: q and k must have the same leading axes and features, and k's heads divide q's, got q: "
            f"{describe(q)}, k: {describe(k)}; their shape is (..., positions, heads, d)."
        )


@overload
def attention(
    q: Array, k: Array, v: Array, bias: Array | None = None, mask: Array | None = None, *,
    causal: Causal = True, scale: float | None = None, query_seq_lengths: Array | None = None,
    key_value_seq_lengths: Array | None = None, local_window_size: int | tuple[int | None, int | None] | None = None,
    softcap: float | None = None, segment_ids: Array | tuple[Array, Array] | None = None, alibi_slopes: Array | None = None,
    dropout_rate: float = 0.0, key: Array | None = None, kernel: bool = False,
    return_residual: Literal[True],
) -> tuple[Array, Array]: ...  # fmt: skip
@overload
def attention(
    q: Array, k: Array, v: Array, bias: Array | None = None, mask: Array | None = None, *,
    causal: Causal = True, scale: float | None = None, query_seq_lengths: Array | None = None,
    key_value_seq_lengths: Array | None = None, local_window_size: int | tuple[int | None, int | None] | None = None,
    softcap: float | None = None, segment_ids: Array | tuple[Array, Array] | None = None, alibi_slopes: Array | None = None,
    dropout_rate: float = 0.0, key: Array | None = None, kernel: bool = False,
    return_residual: Literal[False] = False,
) -> Array: ...  # fmt: skip


def attention(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    *,
    causal: Causal = True,
    scale: float | None = None,
    query_seq_lengths: Array | None = None,
    key_value_seq_lengths: Array | None = None,
    local_window_size: int | tuple[int | None, int | None] | None = None,
    softcap: float | None = None,
    segment_ids: Array | tuple[Array, Array] | None = None,
    alibi_slopes: Array | None = None,
    dropout_rate: float = 0.0,
    key: Array | None = None,
    return_residual: bool = False,
    kernel: bool = False,
) -> Any:
    """y_i = sum_j softmax_j(s_ij) v_j over the keys j that query i sees, for each head, where

    s_ij = c tanh(scale q_i . k_j / c) - slope |i - j| + bias_ij, without what is not given; scale: 1 / sqrt(d) by default.
    q: (..., s, heads, d); k: (..., t, kv_heads, d), v: (..., t, kv_heads, e), kv_heads divides heads; y: (..., s, heads, e).

    Query i sees, of all t keys, those that each of these allows:
    causal: keys 0 ... i, where s = t; "start" says so for any s and t, with "end" the last query sees all keys.
    mask: bool (..., heads, s, t), each axis of that size or 1, or (..., t), a flag for each key; False hides.
    local_window_size: (left, right), so many places before and behind its own; an int for both; None has no end.
    query_seq_lengths, key_value_seq_lengths: integers (...): queries and keys from there on are padding.
    segment_ids: integers (..., s), or a pair of those of queries and of keys: a query sees the keys of its own segment.
    A query that sees no key gives 0.

    bias: (..., heads, s, t), each axis of that size or 1, with a gradient of its own; -inf hides. softcap: c. alibi_slopes:
    (heads,). dropout_rate: the share of weights set to 0, the others growing by 1 / (1 - rate); with a `key` alone.
    return_residual: (y, log z), log z: (..., s, heads), the logarithm of each softmax's denominator, -inf where no key is seen;
    it has a gradient too.

    kernel: on a GPU or TPU, use Pallas kernels forward and backward, which keep nothing of size s t. They take float32,
    bfloat16 and, on a GPU, float16, and causal order alone; heads of up to 256 features on a GPU, and on a TPU as many
    positions as its fast memory holds (6144 in float32, over the heads that share keys). Otherwise it has no effect. A program
    with kernels is exported for one platform at a time.
    Raises TypeError or ValueError where these do not fit.

    >>> q = k = v = jnp.ones((2, 9, 4, 8))
    >>> jax.grad(lambda q: nnjax.ops.attention(q, k, v).sum())(q).shape
    (2, 9, 4, 8)
    """
    who = WHO
    expect_flag(who, kernel=kernel, return_residual=return_residual)
    _expect_qkv(q, k, v)
    lead, (s, heads, d) = q.shape[:-3], q.shape[-3:]
    b, (t, h, e) = math.prod(lead), v.shape[-3:]
    order = expect_causal(who, causal, s, t)
    how = scoring(who, d, causal=order, scale=scale, softcap=softcap, window=local_window_size, rate=dropout_rate)
    found = extras(
        who, Sizes(lead, s, t, heads, h), bias=bias, slopes=alibi_slopes, mask=mask, segments=segment_ids, key=key,
        lengths=(query_seq_lengths, key_value_seq_lengths),
    )  # fmt: skip
    q = q.reshape(b, s, h, heads // h, d).transpose(0, 2, 3, 1, 4)
    k, v = (jnp.swapaxes(x.reshape(b, t, h, x.shape[-1]), 1, 2) for x in (k, v))
    y: Any
    log_z: Any = None
    if return_residual or asks_for_more(how, found, d, e) or (how.causal is not None and s != t):
        y, log_z = _scored(how)(*together((q, k, v, found)))
    else:
        keep = None if found.mask is None else found.mask.reshape(b, t)
        y = _attend(how.causal is not None, bool(kernel))(*together((q, k, v, keep)))
    y = y.transpose(0, 3, 1, 2, 4).reshape(*lead, s, heads, e)
    return (y, log_z.transpose(0, 3, 1, 2).reshape(*lead, s, heads)) if return_residual else y


@overload
def dot_product_attention(
    query: Array, key: Array, value: Array, bias: Array | None = None, mask: Array | None = None, *,
    scale: float | None = None, is_causal: bool = False, query_seq_lengths: Array | None = None,
    key_value_seq_lengths: Array | None = None, local_window_size: int | tuple[int, int] | None = None,
    return_residual: Literal[True],
) -> tuple[Array, Array]: ...  # fmt: skip
@overload
def dot_product_attention(
    query: Array, key: Array, value: Array, bias: Array | None = None, mask: Array | None = None, *,
    scale: float | None = None, is_causal: bool = False, query_seq_lengths: Array | None = None,
    key_value_seq_lengths: Array | None = None, local_window_size: int | tuple[int, int] | None = None,
    return_residual: Literal[False] = False,
) -> Array: ...  # fmt: skip


def dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    query_seq_lengths: Array | None = None,
    key_value_seq_lengths: Array | None = None,
    local_window_size: int | tuple[int, int] | None = None,
    return_residual: bool = False,
) -> Any:
    """`attention` under the names and defaults of `jax.nn.dot_product_attention`, whose place it can take.

    query: (batch, s, heads, d) or (s, heads, d); mask and bias: (batch, heads, s, t) or (heads, s, t), an axis may be 1.
    They differ where a query sees no key: it gives 0 here, and the mean of all values there. The residual has no gradient, as
    there; that of `attention` has.

    >>> q = k = v = jnp.ones((2, 9, 4, 8))
    >>> nnjax.ops.dot_product_attention(q, k, v, is_causal=True).shape
    (2, 9, 4, 8)
    """
    expect_flag("ops.dot_product_attention", is_causal=is_causal)
    attend: Any = attention
    found = attend(
        query, key, value, bias, mask, scale=scale, causal="start" if is_causal else False, query_seq_lengths=query_seq_lengths,
        key_value_seq_lengths=key_value_seq_lengths, local_window_size=local_window_size, return_residual=return_residual,
    )  # fmt: skip
    return (found[0], jax.lax.stop_gradient(found[1])) if return_residual else found
