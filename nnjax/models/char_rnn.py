"""A recurrent network of characters."""

from collections.abc import Sequence
from typing import Any, Literal, overload

from jax import Array

from ..combinators import serial
from ..errors import describe, expect_flag, expect_positive, unknown_name
from ..layer import Layer, Met
from ..layers.dense import dense
from ..layers.embedding import embedding
from ..layers.gru import gru
from ..layers.lstm import lstm
from ..layers.recurrent import rnn
from .cells.linear_block import linear_block

CELLS = {"rnn": rnn, "gru": gru, "lstm": lstm, "linear": linear_block}


@overload
def char_rnn(
    vocab: int, width: int, *, cell: str = "lstm", layers: int = 1, carry: Literal[False] = False, truncate: int | None = None
) -> Layer[Array]: ...
@overload
def char_rnn(
    vocab: int, width: int, *, cell: str = "lstm", layers: int = 1, carry: bool, truncate: int | None = None
) -> Layer: ...


def char_rnn(
    vocab: int, width: int, *, cell: str = "lstm", layers: int = 1, carry: bool = False, truncate: int | None = None
) -> Layer:
    """embedding, `layers` recurrent layers of `cell`, dense.  It returns logits of the next character.

    cell: "rnn", "gru" or "lstm"; "linear" is a block around `rg_lru`: x is added to its output, and to that
    of two dense layers, each after an `rms_norm`. truncate: that of `lstm`, for all but "linear".
    x: integers (..., time) in 0 ... vocab-1, y: (..., time, vocab), from the zero state. With `carry` x is (x, state) and y
    is (y, state), with one entry of state for each recurrent layer; state=None is the zero state. The parameters are the
    same in both: train with one, generate with the other.
    Raises ValueError for an unknown cell or sizes that are not positive ints.

    >>> model = nnjax.char_rnn(65, 32, cell="gru")
    >>> model.apply(model.init(jax.random.key(0)), jnp.array([[1, 2, 3]])).shape
    (1, 3, 65)
    """
    vocab, width, layers = expect_positive("char_rnn", vocab=vocab, width=width, layers=layers)
    expect_flag("char_rnn", carry=carry)
    if not isinstance(cell, str) or cell not in CELLS:
        raise unknown_name("cell of char_rnn", cell, CELLS)
    if truncate is not None and cell == "linear":
        raise ValueError(f"char_rnn: truncate is for the cells rnn, gru and lstm, got {truncate!r} with linear; leave it out.")
    more: Any = {} if truncate is None else {"truncate": truncate}
    recurrent = [CELLS[cell](width, width, carry=carry, **more) for _ in range(layers)]
    if carry:
        return _carried("char_rnn", embedding(vocab, width), recurrent, dense(width, vocab))
    return serial(embedding(vocab, width), *recurrent, dense(width, vocab))._replace(name="char_rnn")


def _carried(name: str, embed: Layer, recurrent: Sequence[Layer], head: Layer) -> Layer:
    """The serial of embed, recurrent layers made with `carry=True`, and head, for (x, state) with one state for each."""
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
