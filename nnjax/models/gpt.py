"""GPT-2."""

import math

import jax

from ..combinators import recompute, residual, scan_layers, serial, tied
from ..errors import expect_flag, expect_positive
from ..layer import Layer, expect_layer
from ..layers.activation import gelu
from ..layers.attention import attention
from ..layers.dense import dense
from ..layers.dropout import dropout as drop
from ..layers.dropout import expect_rate
from ..layers.embedding import embedding, learned_positions, unembedding
from ..layers.norm import layer_norm


def gpt_initializers(layers: int) -> tuple[jax.nn.initializers.Initializer, jax.nn.initializers.Initializer]:
    """Normal with deviation 0.02, and that divided by sqrt(2 layers) for weights into the residual sum."""
    return jax.nn.initializers.normal(0.02), jax.nn.initializers.normal(0.02 / math.sqrt(2 * layers))


def gpt_block(
    layers: int, heads: int, width: int, *, dropout: float = 0.0, activation: Layer | None = None, eps: float = 1e-5,
    hidden: int | None = None, kernel: bool = False,
) -> Layer:  # fmt: skip
    """One of the `layers` blocks of a `gpt`: x + attention(norm(x)), then x + mlp(norm(x))."""
    normal, small = gpt_initializers(layers)
    dropped = (drop(dropout),) if dropout else ()
    hidden = 4 * width if hidden is None else hidden
    mix = attention(width, heads, init=normal, init_out=small, kernel=kernel)
    attend = serial(layer_norm(width, eps=eps), mix, *dropped)
    # The activation's input is kept and its output computed again: it saves four widths of memory for one tanh.
    out = recompute(serial(gelu(approximate=True) if activation is None else activation, dense(hidden, width, init=small)))
    feed = serial(layer_norm(width, eps=eps), dense(width, hidden, init=normal), out, *dropped)
    return serial(residual(attend), residual(feed))


def gpt(
    vocab: int,
    context: int,
    layers: int,
    heads: int,
    width: int,
    *,
    dropout: float = 0.0,
    fused: bool = False,
    remat: bool = False,
    scan: bool = True,
    activation: Layer | None = None,
    eps: float = 1e-5,
    hidden: int | None = None,
    tie: bool = True,
    kernel: bool = False,
) -> Layer:
    """GPT-2 (Radford et al. 2019): ids -> logits of the next id at every position.

    embedding + learned positions; `layers` blocks x + attention(norm(x)), x + mlp(norm(x)), with causal attention and an mlp
    of `hidden` (4 width) and `activation` (tanh-gelu) between; a last norm; the embedding's table again as the head, or with
    tie=False a separate table: params are then the tuple (table, body, head).  eps: of the norms.
    ids: integers (..., s), s <= context; y: (..., s, vocab), or with `fused` (h, table) for `linear_cross_entropy`,
    h: (..., s, width).  dropout: the share dropped of the embedding and of what each block adds (GPT-2 also drops attention
    weights, which are never formed as a whole here).  The blocks run under `scan_layers`, with stacked parameters, and with
    `remat` they are recomputed in the backward; scan=False runs them in a row, with a tuple of parameters.  kernel: as in
    `attention`.  Weights start normal with deviation 0.02, those into the residual sum divided by sqrt(2 layers).
    """
    sizes = {"vocab": vocab, "context": context, "layers": layers, "heads": heads, "width": width}
    vocab, context, layers, heads, width = expect_positive("gpt", **sizes)
    expect_flag("gpt", fused=fused, remat=remat, scan=scan, tie=tie, kernel=kernel)
    if remat and not scan:
        raise ValueError("gpt: remat needs the scan, in which it recomputes blocks, got scan=False; leave one of them out.")
    normal, _ = gpt_initializers(layers)
    dropped = (drop(dropout),) if expect_rate("gpt", dropout) else ()
    hidden = 4 * width if hidden is None else expect_positive("gpt", hidden=hidden)[0]
    if activation is not None:
        expect_layer("gpt", activation)
    block = gpt_block(layers, heads, width, dropout=dropout, activation=activation, eps=eps, hidden=hidden, kernel=kernel)
    blocks = scan_layers(block, layers, remat=remat) if scan else serial(*(block,) * layers)
    body = serial(learned_positions(context, width, init=normal), *dropped, blocks, layer_norm(width, eps=eps))
    embed, head = embedding(vocab, width, init=normal), unembedding(vocab, width, fused=fused)
    whole = tied(embed, body, head) if tie else serial(embed, body, head._replace(init=embed.init))
    return whole._replace(name="gpt")
