"""Models: compositions of layers, no mathematics of their own."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from .chunks import in_chunks
from .errors import describe, expect_positive, unknown_name
from .feedback import Operator, for_layers, transpose
from .layer import Layer, expect_layer, recompute, residual, scan_layers, serial, tied
from .layers.activation import gelu, relu, sigmoid
from .layers.attention import attention
from .layers.conv import conv
from .layers.dense import dense
from .layers.dropout import dropout as drop
from .layers.embedding import embedding, learned_positions
from .layers.gru import gru
from .layers.lstm import lstm
from .layers.norm import layer_norm
from .layers.pool import flatten, max_pool
from .layers.recurrent import rnn
from .layers.unembedding import unembedding
from .weights import read_tensors

Feedback = Operator | Sequence[Operator]


def mlp(sizes: Sequence[int], activation: Layer | None = None, *, feedback: Feedback = transpose) -> Layer:
    """dense, activation, dense, activation, ..., dense: len(sizes) - 1 dense layers, none after the last.

    x: (..., sizes[0]), y: (..., sizes[-1]).  The activation defaults to sigmoid.  feedback: one operator of `nnjax.feedback`,
    or one for each layer after the first: the first has nothing before it to send an error to.
    Raises ValueError for fewer than two sizes or one that is not a positive int.
    """
    if isinstance(sizes, int) or len(sizes) < 2:
        raise ValueError(f"mlp: sizes must hold at least inputs and outputs, got {sizes!r}; pass e.g. [784, 30, 10].")
    expect_positive("mlp", **{f"sizes[{i}]": n for i, n in enumerate(sizes)})
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
    hidden = (hidden,) if isinstance(hidden, int) else tuple(hidden)
    if len(image) != 3:
        raise ValueError(f"lenet: image must be (height, width, channels), got {tuple(image)}; pass e.g. (28, 28, 1).")
    sizes = {"classes": classes, **{f"channels[{i}]": n for i, n in enumerate(channels)}}
    sizes |= {f"hidden[{i}]": n for i, n in enumerate(hidden)} | {f"image[{i}]": n for i, n in enumerate(image)}
    expect_positive("lenet", **sizes)
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
        layers += [activation] * (i > 0) + [drop(dropout)] * (dropout > 0)
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
    expect_positive("char_rnn", vocab=vocab, width=width, layers=layers)
    if cell not in CELLS:
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

    return Layer(name, plain.init, apply, fwd, bwd)


def gpt_initializers(layers: int) -> tuple[Callable, Callable]:
    """Normal with deviation 0.02, and that divided by sqrt(2 layers) for weights into the residual sum."""
    return jax.nn.initializers.normal(0.02), jax.nn.initializers.normal(0.02 / math.sqrt(2 * layers))


def gpt_block(layers: int, heads: int, width: int, *, dropout: float = 0.0) -> Layer:
    """One of the `layers` blocks of a `gpt`: x + attention(norm(x)), then x + mlp(norm(x))."""
    normal, small = gpt_initializers(layers)
    dropped = (drop(dropout),) if dropout else ()
    attend = serial(layer_norm(width), attention(width, heads, init=normal, init_out=small), *dropped)
    # gelu's input is kept and its output computed again: four of the block's widths for one tanh.
    out = recompute(serial(gelu(approximate=True), dense(4 * width, width, init=small)))
    feed = serial(layer_norm(width), dense(width, 4 * width, init=normal), out, *dropped)
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
) -> Layer:
    """GPT-2 (Radford et al. 2019): ids -> logits of the next id at every position.

    embedding + learned positions; `layers` blocks x + attention(norm(x)), x + mlp(norm(x)), with causal attention and an mlp
    of 4 width and tanh-gelu between; a last norm; the embedding's table again as the head.
    ids: integers (..., s), s <= context; y: (..., s, vocab), or with `fused` (h, table) for `linear_cross_entropy`,
    h: (..., s, width).  dropout: the share dropped of the embedding and of what each block adds (GPT-2 drops attention weights
    too: here they are never formed as a whole).  The blocks run under `scan_layers`, their parameters stacked, with `remat`
    recomputed in the backward; scan=False sets them in a row, with a tuple of parameters instead.
    Weights start normal with deviation 0.02, those into the residual sum divided by sqrt(2 layers).
    """
    expect_positive("gpt", vocab=vocab, context=context, layers=layers, heads=heads, width=width)
    if remat and not scan:
        raise ValueError("gpt: remat recomputes blocks inside the scan and needs it, got scan=False; leave one of them out.")
    normal, _ = gpt_initializers(layers)
    dropped = (drop(dropout),) if dropout else ()
    block = gpt_block(layers, heads, width, dropout=dropout)
    blocks = scan_layers(block, layers, remat=remat) if scan else serial(*(block,) * layers)
    body = serial(learned_positions(context, width, init=normal), *dropped, blocks, layer_norm(width))
    return tied(embedding(vocab, width, init=normal), body, unembedding(vocab, width, fused=fused))._replace(name="gpt")


# Of one block of GPT-2 in the Hugging Face layout, in the order of the leaves of ours. Its linear maps store (in, out) too.
BLOCK = (
    "ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "attn.c_proj.bias",
    "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias",
)  # fmt: skip


def gpt2_from_safetensors(path: str | Path, *, heads: int | None = None, **options: Any) -> tuple[Layer, Any]:
    """(gpt, params) from GPT-2 weights in the Hugging Face layout: `model.safetensors` of gpt2, gpt2-medium, ...

    heads: width / 64, as in all of OpenAI's, unless given. options: those of `gpt` (dropout, fused, remat, scan).
    Raises ValueError for a file that cannot be read, lacks an array, or holds one of another shape.
    """
    found = {name.removeprefix("transformer."): array for name, array in read_tensors(path).items()}
    layers = sum(name.startswith("h.") and name.endswith(".ln_1.weight") for name in found)
    if "wte.weight" not in found or "wpe.weight" not in found or not layers:
        some = ", ".join(sorted(found)[:3]) or "nothing"
        raise ValueError(f"{path}: expected the arrays of GPT-2, wte.weight, wpe.weight, h.0.ln_1.weight, ..., got {some}; "
                         "pass a model.safetensors of the gpt2 family.")  # fmt: skip
    (vocab, width), context = found["wte.weight"].shape, found["wpe.weight"].shape[0]
    if heads is None and width % 64:
        raise ValueError(f"{path}: a width of {width} is no multiple of 64, so the number of heads is not known; pass heads.")
    model = gpt(vocab, context, layers, width // 64 if heads is None else heads, width, **options)
    blocks = [[f"h.{i}.{name}" for name in BLOCK] for i in range(layers)]
    names = ["wte.weight", "wpe.weight"]
    names += [n for row in (zip(*blocks) if options.get("scan", True) else blocks) for n in row] + ["ln_f.weight", "ln_f.bias"]
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{path}: {missing[0]} is missing; replace the file with a sound copy.")
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    arrays = iter(found[name] for name in names)
    leaves = []
    for leaf in jax.tree.leaves(shapes):
        stacked = options.get("scan", True) and 2 <= len(leaves) < 2 + len(BLOCK)
        leaves.append(jnp.stack([next(arrays) for _ in range(layers)]) if stacked else next(arrays))
        if leaves[-1].shape != leaf.shape:
            raise ValueError(f"{path}: expected shape {leaf.shape} in the place of leaf {len(leaves)}, got "
                             f"{describe(leaves[-1])}; pass the right number of heads, or a sound copy.")  # fmt: skip
    return model, jax.tree.unflatten(jax.tree.structure(shapes), leaves)
