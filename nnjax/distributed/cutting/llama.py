"""A `llama` over the devices of a mesh: a composition without new mathematics."""

from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh

from ...layers.attention import AttentionParams
from ...layers.dropout import dropout as drop
from ...layers.embedding import embedding, unembedding
from ...layers.norm import rms_norm
from ...models.gpt import gpt_initializers
from ...models.llama import LlamaOptions, expect_llama, llama_block, within
from ..collectives import Axis
from ..sharded import Sharded, fully_sharded, lifted, replicated, residual, scan_layers, serial, tied
from ..vocabulary import vocabulary_embedding
from .summed import by_groups, by_groups_t, cut_swiglu, grouped_attention


def llama(
    vocab: int, context: int, layers: int, heads: int, width: int, mesh: Mesh, *, data: Axis | None = "data",
    model: str | None = None, shard: str | None = None, whole_table: bool = False, remat: bool = False, **options: Any,
) -> Sharded:  # fmt: skip
    """`nnjax.llama(..., fused=True)` over a mesh, for `linear_cross_entropy`, or `vocabulary_cross_entropy` if model is given.

    data: axes with a copy of the parameters each, or None; model: the axis over which groups of heads, the hidden features and
    the vocabulary are split; shard: the axis over which every parameter is fully sharded, block by block. Examples lie on data
    and shard.  whole_table: every device of the axis model has the whole vocabulary, for `linear_cross_entropy`.
    options: those of `nnjax.llama`, but scan.  The parameters are those of `nnjax.llama`, laid out by `llama_by_groups` if
    model is given.
    Raises ValueError if kv_heads, hidden or, without whole_table, vocab are not multiples of the axis model.

    >>> mesh = nnjax.distributed.make_mesh(data=1)
    >>> model = nnjax.distributed.llama(65, 16, 2, 4, 32, mesh, kv_heads=2, tie=True)
    >>> model.layer.init(jax.random.key(0)).table.table.shape
    (65, 32)
    """
    o = expect_llama(LlamaOptions(vocab, context, layers, heads, width, **options))
    normal, small = gpt_initializers(o.layers)
    dropped = (drop(o.dropout),) if o.dropout else ()
    norm = rms_norm(o.width, eps=o.eps)

    def stack(n, window):
        if model is None:
            block = lifted("distributed.llama", llama_block(o, window))
        else:
            made = {"mesh": mesh, "axis": model, "init": normal, "init_out": small}
            mix = grouped_attention(o.width, o.heads, **made, **o.attention(window), bias=o.qkv_bias)
            feed = cut_swiglu(o.width, o.hidden or 0, **made)
            block = serial(residual(serial(norm, mix, *dropped)), residual(serial(norm, feed, *dropped)))
        return scan_layers(block if shard is None else fully_sharded(block, mesh, shard), n, remat=remat)

    table = embedding(o.vocab, o.width, init=normal)
    embed = lifted("distributed.llama", table)
    if model is not None and not whole_table:
        embed = vocabulary_embedding(o.vocab, o.width, mesh, model, init=normal)
    embed = embed._replace(layer=within(embed.layer, o.context))
    head = Sharded(unembedding(o.vocab, o.width, fused=True)._replace(init=table.init), embed.specs)
    body = serial(*dropped, *(stack(n, window) for n, window in o.stacks()), norm)
    whole = tied(embed, body, head) if o.tie else serial(embed, body, head)
    whole = whole if shard is None else fully_sharded(whole, mesh, shard)  # those outside the blocks, the table once
    return whole if data is None else replicated(whole, data)


def llama_by_groups(params: Any, devices: int) -> Any:
    """The parameters of `nnjax.llama` as `llama(..., model=)` takes them, for so many devices on the axis model.

    >>> params = nnjax.llama(65, 16, 2, 4, 32, kv_heads=2).init(jax.random.key(0))
    >>> back = nnjax.distributed.llama_by_groups_t(nnjax.distributed.llama_by_groups(params, 2), 2)
    >>> jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, back))
    True
    """
    return _each(partial(by_groups, devices=devices), params)


def llama_by_groups_t(params: Any, devices: int) -> Any:
    """Back again. See `llama_by_groups`."""
    return _each(partial(by_groups_t, devices=devices), params)


def _each(change: Any, params: Any) -> Any:
    def is_attention(p):
        return isinstance(p, AttentionParams)

    return jax.tree.map(lambda p: change(p) if is_attention(p) else p, params, is_leaf=is_attention)
