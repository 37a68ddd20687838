"""A GPT whose feed-forward parts are mixtures of experts."""

from typing import Any, Literal

from .. import auxiliary as aux
from ..combinators import residual, scan_layers, serial, tied
from ..errors import expect_flag, expect_positive
from ..layer import Layer
from ..layers.attention import attention
from ..layers.dropout import dropout as drop
from ..layers.dropout import expect_rate
from ..layers.embedding import embedding, learned_positions, unembedding
from ..layers.norm import layer_norm
from ..layers.routing.mixture_of_experts import mixture_of_experts
from .gpt import gpt_initializers


def moe_hidden(width: int) -> int:
    """Hidden neurons of an expert: the least multiple of 8 from 8/3 of the width on, as swiglu has three matrices."""
    return 8 * -(-width // 3)


def moe_feed(width: int, experts: int, top_k: int, *, hidden: int | None = None, **options: Any) -> Layer:
    """The mixture in each block of a `moe`; options: those of `mixture_of_experts`.

    >>> nnjax.models.moe_feed(32, 4, 2).init(jax.random.key(0)).router.shape
    (32, 4)
    """
    return mixture_of_experts(width, moe_hidden(width) if hidden is None else hidden, experts, top_k, **options)


def moe(
    vocab: int,
    context: int,
    layers: int,
    heads: int,
    width: int,
    experts: int,
    top_k: int,
    *,
    hidden: int | None = None,
    activation: Literal["swiglu", "gelu"] = "swiglu",
    balance: float = 0.01,
    z: float = 0.001,
    dropout: float = 0.0,
    fused: bool = False,
    auxiliary: bool = False,
    remat: bool = False,
    scan: bool = True,
) -> Layer:
    """A `gpt` in which each position goes through top_k of `experts` mlps: x + attention(norm(x)), then x + mixture(norm(x)).

    ids: integers (..., s), s <= context; y: (..., s, vocab), or with `fused` (h, table), as in `gpt`; the rest as there too.
    hidden: neurons of an expert, by default about 8/3 of the width; activation: of the experts.
    auxiliary: the result is (y, sum of the routers' losses) for `auxiliary.to_loss`, with the weights balance and z, as in
    `mixture_of_experts`, which are not used otherwise. The parameters are the same.
    Raises ValueError as `gpt` and `mixture_of_experts` do.

    >>> model = nnjax.moe(65, context=16, layers=2, heads=4, width=32, experts=4, top_k=2)
    >>> model.apply(model.init(jax.random.key(0)), jnp.array([[1, 2, 3]])).shape
    (1, 3, 65)
    """
    sizes = {"vocab": vocab, "context": context, "layers": layers, "heads": heads, "width": width}
    vocab, context, layers, heads, width = expect_positive("moe", **sizes)
    expect_flag("moe", fused=fused, auxiliary=auxiliary, remat=remat, scan=scan)
    if remat and not scan:
        raise ValueError("moe: remat needs the scan, in which it recomputes blocks, got scan=False; leave one of them out.")
    normal, small = gpt_initializers(layers)
    dropped = (drop(dropout),) if expect_rate("moe", dropout) else ()
    losses = {"balance": balance, "z": z} if auxiliary else {}
    mixture = moe_feed(width, experts, top_k, hidden=hidden, activation=activation, init=normal, init_out=small, **losses)
    attend = residual(serial(layer_norm(width), attention(width, heads, init=normal, init_out=small), *dropped))
    first, past, add = (aux.start, aux.past, aux.add) if auxiliary else (_itself, _itself, _itself)
    feed = residual(serial(layer_norm(width), mixture, *map(past, dropped)))
    block = serial(past(attend), add(feed))
    blocks = scan_layers(block, layers, remat=remat) if scan else serial(*(block,) * layers)
    positions = first(learned_positions(context, width, init=normal))
    body = serial(positions, *map(past, dropped), blocks, past(layer_norm(width)))
    head = past(unembedding(vocab, width, fused=fused))
    return tied(embedding(vocab, width, init=normal), body, head)._replace(name="moe")


def _itself(layer: Layer) -> Layer:
    return layer
