"""Models: compositions of layers, no mathematics of their own."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from .chunks import in_chunks
from .errors import describe, expect_flag, expect_positive, expect_sizes, unknown_name, whole_number
from .feedback import Operator, for_layers, transpose
from .gpt2 import BLOCK as BLOCK
from .gpt2 import array_names, read_gpt2
from .layer import Layer, Met, expect_layer, recompute, residual, scan_layers, serial, tied
from .layers.activation import gelu, relu, sigmoid
from .layers.attention import attention
from .layers.conv import conv
from .layers.dense import dense
from .layers.dropout import dropout as drop
from .layers.dropout import expect_rate
from .layers.embedding import embedding, learned_positions
from .layers.gru import gru
from .layers.lstm import lstm
from .layers.norm import layer_norm
from .layers.pool import flatten, max_pool
from .layers.recurrent import rnn
from .layers.unembedding import unembedding

Feedback = Operator | Sequence[Operator]


def mlp(sizes: Sequence[int], activation: Layer | None = None, *, feedback: Feedback = transpose) -> Layer:
    """dense, activation, dense, activation, ..., dense: len(sizes) - 1 dense layers, none after the last.

    x: (..., sizes[0]), y: (..., sizes[-1]).  The activation defaults to sigmoid.  feedback: one operator of `nnjax.feedback`,
    or one for each layer after the first: the first has nothing before it to send an error to.
    Raises ValueError for fewer than two sizes or one that is not a positive int.
    """
    sizes = expect_sizes("mlp", "sizes", sizes, "[784, 30, 10]")
    if len(sizes) < 2:
        raise ValueError(f"mlp: sizes must hold at least inputs and outputs, got {sizes!r}; pass e.g. [784, 30, 10].")
    activation = sigmoid() if activation is None else activation
    expect_layer("mlp", activation)
    layers = [dense(sizes[0], sizes[1])]
    for n_in, n_out, back in zip(sizes[1:-1], sizes[2:], for_layers("mlp", feedback, len(sizes) - 2)):
        layers += [activation, dense(n_in, n_out, feedback=back)]
    return serial(*layers)._replace(name="mlp")


# Images at a time. LeNet's step over that of jax.grad, time (temporary memory), at batch 10 and 128:
# 8: 0.55 (0.53), 0.37 (0.12); 16: 0.57 (0.80), 0.37 (0.12); 32: 0.59 (0.80), 0.39 (0.16); all: 0.55 (0.80), 0.44 (0.38).
CHUNK = 8


def lenet(
    classes: int = 10,
    *,
    channels: Sequence[int] = (20, 40),
    hidden: int | Sequence[int] = 100,
    activation: Layer | None = None,
    image: Sequence[int] = (28, 28, 1),
    dropout: float = 0.0,
    feedback: Feedback = transpose,
) -> Layer:
    """For each entry of `channels`: conv 5 x 5 without padding, max-pool 2 x 2, activation; then dense layers.

    x: (..., *image), image = (height, width, channels); y: (..., classes), logits.  hidden: the width, or widths, of the
    dense layers between, each followed by the activation (relu by default); dropout: before each dense layer; feedback:
    as of `mlp`.  Two conv-pool layers are LeNet (LeCun et al. 1998), and chapter 6 of Nielsen's book.
    Raises ValueError for sizes that are not positive ints, and for an image too small for the kernels.
    """
    (classes,) = expect_positive("lenet", classes=classes)
    width = whole_number(hidden)
    hidden = expect_sizes("lenet", "hidden", hidden if width is None else (width,), "100 or (100, 50)")
    channels = expect_sizes("lenet", "channels", channels, "(20, 40)")
    image = expect_sizes("lenet", "image", image, "(28, 28, 1)")
    if len(image) != 3:
        raise ValueError(f"lenet: image must be (height, width, channels), got {image}; pass e.g. (28, 28, 1).")
    dropped = (drop(dropout),) if expect_rate("lenet", dropout) else ()
    activation = relu() if activation is None else activation
    expect_layer("lenet", activation)
    backs = iter((transpose, *for_layers("lenet", feedback, len(channels) + len(hidden))))
    height, width, n_in = image
    layers = []
    for n_out in channels:
        layers += [conv(n_in, n_out, (5, 5), padding="VALID", feedback=next(backs)), max_pool((2, 2)), activation]
        height, width, n_in = (height - 4) // 2, (width - 4) // 2, n_out
        if height < 1 or width < 1:
            raise ValueError(
                f"lenet: an image of {image[0]} x {image[1]} is too small for {len(channels)} convolutions of 5 x 5, each "
                "with a 2 x 2 max-pool; pass a larger image or fewer channels."
            )
    layers = [in_chunks(serial(*layers, flatten(3)), CHUNK, axes=3)]
    widths = (height * width * n_in, *hidden, classes)
    for i, (n_in, n_out) in enumerate(zip(widths[:-1], widths[1:])):
        layers += [activation] * (i > 0)
        layers += dropped
        layers.append(dense(n_in, n_out, feedback=next(backs)))
    return serial(*layers)._replace(name="lenet")


CELLS = {"rnn": rnn, "gru": gru, "lstm": lstm}


def char_rnn(vocab: int, width: int, *, cell: str = "lstm", layers: int = 1, carry: bool = False) -> Layer:
    """embedding, `layers` recurrent layers of `cell` ("rnn", "gru" or "lstm"), dense.  Logits of the next character.

    x: integers (..., time) in 0 ... vocab-1, y: (..., time, vocab), from the zero state. With `carry` x is (x, state) and y
    is (y, state), with one entry of state for each recurrent layer; state=None is the zero state. The parameters are the
    same either way: train with one, generate with the other.
    Raises ValueError for a cell that is not known or sizes that are not positive ints.
    """
    vocab, width, layers = expect_positive("char_rnn", vocab=vocab, width=width, layers=layers)
    expect_flag("char_rnn", carry=carry)
    if not isinstance(cell, str) or cell not in CELLS:
        raise unknown_name("cell of char_rnn", cell, CELLS)
    recurrent = [CELLS[cell](width, width, carry=carry) for _ in range(layers)]
    if carry:
        return _carried("char_rnn", embedding(vocab, width), recurrent, dense(width, vocab))
    return serial(embedding(vocab, width), *recurrent, dense(width, vocab))._replace(name="char_rnn")


def _carried(name: str, embed: Layer, recurrent: Sequence[Layer], head: Layer) -> Layer:
    """The serial of embed, recurrent layers made with `carry=True`, and head, of (x, state) with one state for each."""
    plain = serial(embed, *recurrent, head)

    def entered(params, x):
        if not isinstance(x, tuple) or len(x) != 2:
            raise TypeError(f"{name}: with carry=True x must be the tuple (x, state), got {describe(x)}; pass (x, None) to "
                            "start from zero.")  # fmt: skip
        x, state = x
        state = (None,) * len(recurrent) if state is None else state
        if not isinstance(state, tuple) or len(state) != len(recurrent):
            raise TypeError(f"{name}: state must be a tuple with one entry for each of {len(recurrent)} recurrent layers, got "
                            f"{describe(state)}; pass None to start from zero.")  # fmt: skip
        if not isinstance(params, tuple) or len(params) != len(plain.parts):
            raise TypeError(f"{name}: params must be a tuple with one entry for each of its {len(plain.parts)} layers, got "
                            f"{describe(params)}; make them with layer.init(key).")  # fmt: skip
        return params[0], params[1:-1], params[-1], x, state

    def apply(params, x, *, key=None):
        p_embed, p_cells, p_head, x, state = entered(params, x)
        h = embed.apply(p_embed, x)
        last = []
        for layer, p, s in zip(recurrent, p_cells, state):
            h, s = layer.apply(p, (h, s))
            last.append(s)
        return head.apply(p_head, h), tuple(last)

    def fwd(params, x, *, key=None):
        p_embed, p_cells, p_head, x, state = entered(params, x)
        h, embed_residuals = embed.fwd(p_embed, x)
        last, residuals = [], []
        for layer, p, s in zip(recurrent, p_cells, state):
            (h, s), kept = layer.fwd(p, (h, s))
            last.append(s)
            residuals.append(kept)
        y, head_residuals = head.fwd(p_head, h)
        return (y, tuple(last)), (embed_residuals, tuple(residuals), head_residuals)

    def bwd(residuals, ct):
        embed_residuals, cells_residuals, head_residuals = residuals
        ct_y, ct_last = ct
        ct_head, ct_h = head.bwd(head_residuals, ct_y)
        ct_cells, ct_state = [], []
        for layer, kept, ct_s in zip(reversed(recurrent), reversed(cells_residuals), reversed(ct_last)):
            ct_p, (ct_h, ct_s) = layer.bwd(kept, (ct_h, ct_s))  # (A B)ᵀ = Bᵀ Aᵀ
            ct_cells.append(ct_p)
            ct_state.append(ct_s)
        ct_embed, ct_x = embed.bwd(embed_residuals, ct_h)
        ct_params = (ct_embed, *reversed(ct_cells), ct_head)
        given = any(s is not None for s in ct_state)
        return ct_params, (ct_x, tuple(reversed(ct_state)) if given else None)

    def walk(params, x, key):
        p_embed, p_cells, p_head, x, state = entered(params, x)
        p_embed, h = yield Met("0", embed, p_embed, x, None)
        found, last = [], []
        for i, (layer, p, s) in enumerate(zip(recurrent, p_cells, state), 1):
            p, (h, s) = yield Met(str(i), layer, p, (h, s), None)
            found.append(p)
            last.append(s)
        p_head, y = yield Met(str(len(plain.parts) - 1), head, p_head, h, None)
        return (p_embed, *found, p_head), (y, tuple(last))

    def remade(embed, *rest):
        return _carried(name, embed, rest[:-1], rest[-1])

    return Layer(name, plain.init, apply, fwd, bwd, plain.parts, walk, remade)


def gpt_initializers(layers: int) -> tuple[Callable, Callable]:
    """Normal with deviation 0.02, and that divided by sqrt(2 layers) for weights into the residual sum."""
    return jax.nn.initializers.normal(0.02), jax.nn.initializers.normal(0.02 / math.sqrt(2 * layers))


def gpt_block(
    layers: int, heads: int, width: int, *, dropout: float = 0.0, activation: Layer | None = None, eps: float = 1e-5,
    hidden: int | None = None,
) -> Layer:  # fmt: skip
    """One of the `layers` blocks of a `gpt`: x + attention(norm(x)), then x + mlp(norm(x))."""
    normal, small = gpt_initializers(layers)
    dropped = (drop(dropout),) if dropout else ()
    hidden = 4 * width if hidden is None else hidden
    attend = serial(layer_norm(width, eps=eps), attention(width, heads, init=normal, init_out=small), *dropped)
    # The activation's input is kept and its output computed again: four of the block's widths for one tanh.
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
) -> Layer:
    """GPT-2 (Radford et al. 2019): ids -> logits of the next id at every position.

    embedding + learned positions; `layers` blocks x + attention(norm(x)), x + mlp(norm(x)), with causal attention and an mlp
    of `hidden` (4 width) and `activation` (tanh-gelu) between; a last norm; the embedding's table again as the head, or with
    tie=False a table of its own: params are then the tuple (table, body, head).  eps: of the norms.
    ids: integers (..., s), s <= context; y: (..., s, vocab), or with `fused` (h, table) for `linear_cross_entropy`,
    h: (..., s, width).  dropout: the share dropped of the embedding and of what each block adds (GPT-2 drops attention weights
    too: here they are never formed as a whole).  The blocks run under `scan_layers`, their parameters stacked, with `remat`
    recomputed in the backward; scan=False sets them in a row, with a tuple of parameters instead.
    Weights start normal with deviation 0.02, those into the residual sum divided by sqrt(2 layers).
    """
    sizes = {"vocab": vocab, "context": context, "layers": layers, "heads": heads, "width": width}
    vocab, context, layers, heads, width = expect_positive("gpt", **sizes)
    expect_flag("gpt", fused=fused, remat=remat, scan=scan, tie=tie)
    if remat and not scan:
        raise ValueError("gpt: remat recomputes blocks inside the scan and needs it, got scan=False; leave one of them out.")
    normal, _ = gpt_initializers(layers)
    dropped = (drop(dropout),) if expect_rate("gpt", dropout) else ()
    hidden = 4 * width if hidden is None else expect_positive("gpt", hidden=hidden)[0]
    if activation is not None:
        expect_layer("gpt", activation)
    block = gpt_block(layers, heads, width, dropout=dropout, activation=activation, eps=eps, hidden=hidden)
    blocks = scan_layers(block, layers, remat=remat) if scan else serial(*(block,) * layers)
    body = serial(learned_positions(context, width, init=normal), *dropped, blocks, layer_norm(width, eps=eps))
    embed, head = embedding(vocab, width, init=normal), unembedding(vocab, width, fused=fused)
    whole = tied(embed, body, head) if tie else serial(embed, body, head._replace(init=embed.init))
    return whole._replace(name="gpt")


def gpt2_options(path: str | Path, *, heads: int | None = None) -> dict[str, Any]:
    """The options with which `gpt` makes the model of these files, see `gpt2_from_safetensors`.

    `generate_gpt` takes three of them: heads, activation and eps.
    """
    return read_gpt2(path, heads)[0]


def gpt2_from_safetensors(
    path: str | Path, *, heads: int | None = None, dtype: Any = None, dropout: float = 0.0, fused: bool = False,
    remat: bool = False, scan: bool = True,
) -> tuple[Layer, Any]:  # fmt: skip
    """(gpt, params) from GPT-2 weights in the Hugging Face layout: gpt2, gpt2-medium, ...

    path: a folder with model.safetensors, or its shards and their index; or one of these files.  What config.json beside it
    says is done: activation, epsilon, scale of attention, heads, width of the mlp, an untied head.  Where there is none, heads
    are width / 64, as in all of OpenAI's, unless given.  The scale of attention is put into the weights of the queries, which
    then differ from the file's.  dtype: of the parameters, that of the file unless given.  dropout, fused, remat, scan: as of
    `gpt`; the config's dropout is not taken.
    Raises ValueError for files that cannot be read, contradict each other, lack an array, or ask for what `gpt` has not.
    """
    options, found = read_gpt2(path, heads, dtype)
    model = gpt(**options, dropout=dropout, fused=fused, remat=remat, scan=scan)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    layers, names = options["layers"], iter(array_names(options["layers"], options["tie"], scan))
    leaves = []
    for leaf in jax.tree.leaves(shapes):
        stacked = scan and 2 <= len(leaves) < 2 + len(BLOCK)
        of = [next(names) for _ in range(layers if stacked else 1)]
        for name in of:
            if found[name].shape != leaf.shape[stacked:]:
                raise ValueError(f"{path}: expected shape {leaf.shape[stacked:]} of {name}, got {describe(found[name])}; "
                                 "replace it with a sound copy.")  # fmt: skip
        leaves.append(jnp.stack([found[name] for name in of]) if stacked else found[of[0]])
    return model, jax.tree.unflatten(jax.tree.structure(shapes), leaves)
