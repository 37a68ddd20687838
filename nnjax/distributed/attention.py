"""Attention split by heads: every device of an axis has some of them."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ..layer import Layer
from ..layers.attend import attend_apply
from ..layers.attend import fast_bwd as attend_bwd
from ..layers.attend import fast_fwd as attend_fwd
from ..layers.attention import (
    AttentionParams,
    attention,
    expect_attention,
    join_heads,
    join_heads_t,
    split_heads,
    split_heads_t,
)
from .dense import column_dense_apply, column_dense_bwd, column_dense_fwd, row_dense_apply, row_dense_bwd, row_dense_fwd
from .sharded import Sharded, expect_divides, like_parameters


def by_heads(params: AttentionParams) -> AttentionParams:
    """The parameters of `nnjax.attention` with separate queries, keys and values: qkv.w (n, 3, n), qkv.b (3, n), split by
    columns.

    Entries keep their order: the transpose is the reshape back (`by_heads_t`).
    """
    return params._replace(qkv=jax.tree.map(lambda p: p.reshape(*p.shape[:-1], 3, p.shape[-1] // 3), params.qkv))


def by_heads_t(ct: AttentionParams) -> AttentionParams:
    """Back to one axis of 3 n columns."""
    return ct._replace(qkv=jax.tree.map(lambda p: p.reshape(*p.shape[:-2], -1), ct.qkv))


def _local(params, x, opts):
    """The part of one device: its columns side by side, its heads, x with one batch axis."""
    heads = params.out.w.shape[0] // opts.d
    return by_heads_t(params), opts._replace(n=params.out.w.shape[0], heads=heads, kv_heads=heads), fold_batch(x)


def fold_batch(x: Array) -> Array:
    """(..., s, n) -> (b, s, n)."""
    return x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])


def head_attention_apply(params: Any, x: Array, *, key: Any = None, opts: Any, axis: str) -> Array:
    """The attention of each device's heads, summed by the rows of W_out.  x, y: (..., s, n), the same on all devices."""
    params, own, rows = _local(params, x, opts)
    q, k, v = split_heads(column_dense_apply(params.qkv, rows, axis=axis), own)
    y = join_heads(attend_apply(q, k, v, None, causal=opts.causal))
    return row_dense_apply(params.out, y, axis=axis).reshape(x.shape)


def head_attention_fwd(params: Any, x: Array, *, key: Any = None, opts: Any, axis: str) -> Any:
    params, own, rows = _local(params, x, opts)
    columns, qkv_residuals = column_dense_fwd(params.qkv, rows, axis=axis)
    y, kept = attend_fwd(*split_heads(columns, own), None, causal=opts.causal)
    y, out_residuals = row_dense_fwd(params.out, join_heads(y), axis=axis)
    return y.reshape(x.shape), (qkv_residuals, kept, out_residuals)


def head_attention_bwd(residuals: Any, ct_y: Array, *, opts: Any, axis: str) -> Any:
    qkv_residuals, kept, out_residuals = residuals  # the same maps, transposed, in reverse order
    heads = out_residuals[0].w.shape[0] // opts.d
    ct_out, ct = row_dense_bwd(out_residuals, fold_batch(ct_y), axis=axis)
    ct_q, ct_k, ct_v = attend_bwd(kept, join_heads_t(ct, (heads, 1)), causal=opts.causal)
    ct_qkv, ct_x = column_dense_bwd(qkv_residuals, split_heads_t(ct_q, ct_k, ct_v), axis=axis)
    return by_heads(AttentionParams(ct_qkv, ct_out)), ct_x.reshape(ct_y.shape)


def head_attention(
    n: int, heads: int, mesh: Mesh, axis: str = "model", *, causal: bool = True,
    init: Callable[..., Array] | None = None, init_out: Callable[..., Array] | None = None,
) -> Sharded:  # fmt: skip
    """`nnjax.attention` split by heads: one all-reduce forward, after W_out, and one backward, before W_qkv.

    Parameters are laid out by `by_heads`.  Raises ValueError if heads is not a multiple of the axis.

    >>> mesh = nnjax.distributed.make_mesh(model=1)
    >>> tuple(nnjax.distributed.head_attention(16, 4, mesh).specs.out.w)
    ('model', None)
    """
    opts = expect_attention(n, heads, causal=causal)
    expect_divides("head_attention", "heads", heads, mesh, axis)
    whole = attention(n, heads, causal=causal, init=init, init_out=init_out)
    layer = Layer(
        f"head_attention({n}, {heads})",
        lambda key: by_heads(whole.init(key)),
        lambda params, x, *, key=None: head_attention_apply(params, x, opts=opts, axis=axis),
        lambda params, x, *, key=None: head_attention_fwd(params, x, opts=opts, axis=axis),
        lambda residuals, ct_y: head_attention_bwd(residuals, ct_y, opts=opts, axis=axis),
    )
    specs = [P(None, None, axis), P(None, axis), P(axis, None), P()]
    return Sharded(layer, like_parameters(layer, specs))
