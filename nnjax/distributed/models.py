"""The models of `nnjax.models`, split over the devices of a mesh: compositions without new mathematics."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from .. import auxiliary as aux
from .. import combinators as one_device
from ..combinators import TiedParams, recompute
from ..layer import Layer
from ..layers.activation import gelu, sigmoid
from ..layers.attention import AttentionParams, attention
from ..layers.dense import dense
from ..layers.dropout import dropout as drop
from ..layers.embedding import embedding, learned_positions, unembedding
from ..layers.norm import layer_norm
from ..models.gpt import gpt_block, gpt_initializers
from ..models.moe import moe_hidden
from .attention import by_heads, by_heads_t, head_attention
from .collectives import Axis, names
from .dense import column_dense, row_dense
from .routing.mixture_of_experts import mixture_of_experts
from .sharded import Sharded, fully_sharded, lifted, replicated, residual, scan_layers, serial, tied
from .vocabulary import vocabulary_embedding


def mlp(
    sizes: Sequence[int], mesh: Mesh, activation: Layer | None = None, *, data: Axis = "data", model: str = "model"
) -> Sharded:
    """`nnjax.mlp` with its layers split by columns and by rows in turn: one all-reduce for each pair, forward and backward.

    The parameters are those of `nnjax.mlp`; a last layer without a partner is whole on every device.
    Raises ValueError if the width between a pair is not a multiple of the axis.

    >>> mesh = nnjax.distributed.make_mesh(data=1, model=1)
    >>> model = nnjax.distributed.mlp([4, 8, 3], mesh)
    >>> model.layer.init(jax.random.key(0))[0].w.shape
    (4, 8)
    """
    act = sigmoid() if activation is None else activation
    pairs = list(zip(sizes[:-1], sizes[1:]))
    parts: list[Sharded | Layer] = []
    for i, (n_in, n_out) in enumerate(pairs):
        parts += [act] if i else []
        if i % 2:
            parts.append(row_dense(n_in, n_out, mesh, model))
        else:
            parts.append(column_dense(n_in, n_out, mesh, model) if i + 1 < len(pairs) else dense(n_in, n_out))
    return replicated(serial(*parts), data)


def gpt(
    vocab: int, context: int, layers: int, heads: int, width: int, mesh: Mesh, *, data: Axis | None = "data",
    model: str | None = None, shard: str | None = None, whole_table: bool = False, dropout: float = 0.0, remat: bool = False,
) -> Sharded:  # fmt: skip
    """`nnjax.gpt(..., fused=True)` over a mesh, for `linear_cross_entropy`, or `vocabulary_cross_entropy` if model is given.

    data: axes with a copy of the parameters each, or None; model: the axis over which heads, the mlp's width and the
    vocabulary are split; shard: the axis over which every parameter is fully sharded, block by block. Examples lie on data
    and shard.
    whole_table: every device of the axis model has the whole vocabulary, for `linear_cross_entropy`.
    The parameters are those of `nnjax.gpt`, laid out by `gpt_by_heads` if model is given.
    Raises ValueError if heads, 4 width or, without whole_table, vocab are not multiples of the axis model.

    >>> mesh = nnjax.distributed.make_mesh(data=1)
    >>> model = nnjax.distributed.gpt(65, 16, 2, 4, 32, mesh)
    >>> model.layer.init(jax.random.key(0)).table.table.shape
    (65, 32)
    """
    normal, small = gpt_initializers(layers)
    dropped = (drop(dropout),) if dropout else ()
    if model is None:
        block = lifted("distributed.gpt", gpt_block(layers, heads, width, dropout=dropout))
    else:
        attend = serial(layer_norm(width), head_attention(width, heads, mesh, model, init=normal, init_out=small), *dropped)
        out = serial(gelu(approximate=True), row_dense(4 * width, width, mesh, model, init=small))
        out = out._replace(layer=recompute(out.layer))
        feed = serial(layer_norm(width), column_dense(width, 4 * width, mesh, model, init=normal), out, *dropped)
        block = serial(residual(attend), residual(feed))
    if model is None or whole_table:
        embed = lifted("distributed.gpt", embedding(vocab, width, init=normal))
    else:
        embed = vocabulary_embedding(vocab, width, mesh, model, init=normal)
    head = Sharded(unembedding(vocab, width, fused=True), embed.specs)
    block = block if shard is None else fully_sharded(block, mesh, shard)
    stack, positions = scan_layers(block, layers, remat=remat), learned_positions(context, width, init=normal)
    whole = tied(embed, serial(positions, *dropped, stack, layer_norm(width)), head)
    whole = whole if shard is None else fully_sharded(whole, mesh, shard)  # those outside the blocks, the table once
    return whole if data is None else replicated(whole, data)


def moe(
    vocab: int, context: int, layers: int, heads: int, width: int, experts: int, top_k: int, mesh: Mesh, *,
    data: Axis | None = "data", expert: str | None = None, shard: str | None = None, hidden: int | None = None,
    activation: Literal["swiglu", "gelu"] = "swiglu", balance: float = 0.01, z: float = 0.001, dropout: float = 0.0,
    remat: bool = False,
) -> Sharded:  # fmt: skip
    """`nnjax.moe(..., fused=True, auxiliary=True)` over a mesh, for `mean_over(auxiliary.to_loss(linear_cross_entropy()))`.

    data, shard: as in `gpt`; expert: the axis on whose devices the experts lie. Examples lie on all of them. The parameters
    are those of `nnjax.moe`.
    Raises ValueError if experts is not a multiple of the axis expert.

    >>> mesh = nnjax.distributed.make_mesh(data=1, expert=1)
    >>> model = nnjax.distributed.moe(65, 16, 2, 4, 32, 4, 2, mesh, expert="expert")
    >>> model.layer.init(jax.random.key(0)).table.table.shape
    (65, 32)
    """
    normal, small = gpt_initializers(layers)
    dropped = (drop(dropout),) if dropout else ()
    copies = (*names(data or ()), *names(expert or ()))
    mixture = mixture_of_experts(
        width, moe_hidden(width) if hidden is None else hidden, experts, top_k, mesh, expert,
        batch=(*copies, *names(shard or ())), activation=activation, balance=balance, z=z, init=normal, init_out=small,
    )  # fmt: skip
    mix = one_device.serial(layer_norm(width), attention(width, heads, init=normal, init_out=small), *dropped)
    feed = residual(serial(layer_norm(width), mixture, *map(aux.past, dropped)))
    block = serial(aux.past(one_device.residual(mix)), feed._replace(layer=aux.add(feed.layer)))
    block = block if shard is None else fully_sharded(block, mesh, shard)
    positions = aux.start(learned_positions(context, width, init=normal))
    stack = scan_layers(block, layers, remat=remat)
    body = serial(positions, *map(aux.past, dropped), stack, aux.past(layer_norm(width)))
    embed = lifted("distributed.moe", embedding(vocab, width, init=normal))
    whole = tied(embed, body, Sharded(aux.past(unembedding(vocab, width, fused=True)), embed.specs))
    whole = whole if shard is None else fully_sharded(whole, mesh, shard)
    return replicated(whole, copies) if copies else whole


def gpt_by_heads(params: Any) -> Any:
    """The parameters of `nnjax.gpt` as `gpt(..., model=)` takes them.

    >>> params = nnjax.gpt(65, 16, 2, 4, 32).init(jax.random.key(0))
    >>> back = nnjax.distributed.gpt_by_heads_t(nnjax.distributed.gpt_by_heads(params))
    >>> jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, back))
    True
    """
    return _each(AttentionParams, by_heads, params)


def gpt_by_heads_t(params: Any) -> Any:
    """Back again. See `gpt_by_heads`."""
    return _each(AttentionParams, by_heads_t, params)


def gpt_stacked(params: Any) -> Any:
    """The parameters of `nnjax.gpt(..., scan=False)` in the layout of scan=True: all blocks stacked along a new first axis.

    >>> params = nnjax.gpt(65, 16, 2, 4, 32, scan=False).init(jax.random.key(0))
    >>> back = nnjax.distributed.gpt_stacked_t(nnjax.distributed.gpt_stacked(params))
    >>> jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, back))
    True
    """

    def stacked(p):
        *before, blocks, norm = p.body
        return p._replace(body=(*before, jax.tree.map(lambda *a: jnp.stack(a), *blocks), norm))

    return _each(TiedParams, stacked, params)


def gpt_stacked_t(params: Any) -> Any:
    """Back again. See `gpt_stacked`."""

    def apart(p):
        *before, stack, norm = p.body
        n = jax.tree.leaves(stack)[0].shape[0]
        return p._replace(body=(*before, tuple(jax.tree.map(lambda a, i=i: a[i], stack) for i in range(n)), norm))

    return _each(TiedParams, apart, params)


def _each(kind, change, params):
    """The tree with change(p) for every p of this kind."""

    def is_kind(p):
        return isinstance(p, kind)

    return jax.tree.map(lambda p: change(p) if is_kind(p) else p, params, is_leaf=is_kind)
