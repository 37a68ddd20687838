"""Recurrent layers above each other, in one direction or both, with dropout between them."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ...errors import describe, expect_flag, expect_positive
from ...layer import Layer, Met, split_key
from ..dropout import dropout, expect_rate
from .both_ways import both_ways
from .one_way import How, cotangents, given


class Shape(NamedTuple):
    """How many recurrent layers stand above each other, whether each runs both ways, and the share dropped between them."""

    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0


def expect_options(
    who: str, *, carry: Any, bidirectional: Any, layers: Any, dropout: Any, lengths: Any, truncate: Any
) -> tuple[How, Shape]:
    """The options that all recurrent layers have. Raises TypeError or ValueError for those that make no sense."""
    expect_flag(who, carry=carry, bidirectional=bidirectional, lengths=lengths)
    (layers,) = expect_positive(who, layers=layers)
    if truncate is not None:
        (truncate,) = expect_positive(who, truncate=truncate)
    rate = expect_rate(f"{who}: dropout", dropout)
    if rate and layers == 1:
        raise ValueError(f"{who}: dropout acts between layers, got {dropout!r} with layers=1; add layers, or nnjax.dropout.")
    return How(bool(carry), bool(lengths), truncate), Shape(layers, bool(bidirectional), rate)


def recurrent(name: str, cell: Callable[[int, How], Layer], n_in: int, n_hidden: int, how: How, shape: Shape) -> Layer:
    """The recurrent layers of this shape; cell(n_in, how): one of them in one direction."""
    if shape == Shape():
        return cell(n_in, how)
    inner, levels = how._replace(carry=True), []
    for i in range(shape.layers):
        n = n_in if i == 0 else n_hidden * (2 if shape.bidirectional else 1)
        levels.append(both_ways(cell(n, inner), cell(n, inner), n_hidden, how) if shape.bidirectional else cell(n, inner))
    words = [f"{name}({n_in}, {n_hidden}", *(["both ways"] if shape.bidirectional else [])]
    words += [f"{shape.layers} layers"] if shape.layers > 1 else []
    return stacked(", ".join(words) + ")", levels, dropout(shape.dropout) if shape.dropout else None, how)


def stacked(name: str, levels: list[Layer], drop: Layer | None, how: How) -> Layer:
    """y = f_n(... drop(f_2(drop(f_1(x))))) of recurrent layers made with carry=True.

    The state is a tuple with that of each, or that of the only one; so are the parameters.  drop: a dropout, drawn anew between
    each two.  Backward: ct_x = J_1ᵀ D_1 J_2ᵀ D_2 ... J_nᵀ ct_y, last layer first; D, diagonal, is its own transpose.
    """
    alone = len(levels) == 1

    def entered(params, x):
        """(params, x, states, lengths), the parameters and states as one for each level."""
        x, state, lengths = given(name, how, x)
        found = []
        for what, tree, remedy in (
            ("params", params, "make them with layer.init(key)"),
            ("state", state, "pass None to start from zero"),
        ):
            if alone:
                found.append((tree,))
            elif what == "state" and tree is None:
                found.append((None,) * len(levels))
            elif not isinstance(tree, tuple) or len(tree) != len(levels) or hasattr(tree, "_fields"):
                raise TypeError(f"{name}: {what} must be a tuple with one entry for each of its {len(levels)} layers, got "
                                f"{describe(tree)}; {remedy}.")  # fmt: skip
            else:
                found.append(tree)
        return found[0], x, found[1], ((lengths,) if how.lengths else ())

    def left(y, states):
        states = states[0] if alone else tuple(states)
        return (y, states) if how.carry else y

    def drops(i, key):
        """The dropout after the i-th level, and its key; none after the last."""
        return () if drop is None or i == len(levels) - 1 else ((drop, key),)

    def init(key):
        params = tuple(level.init(k) for level, k in zip(levels, split_key(key, len(levels))))
        return params[0] if alone else params

    def apply(params, x, *, key=None):
        params, y, states, lengths = entered(params, x)
        last = []
        for i, (level, p, s, k) in enumerate(zip(levels, params, states, split_key(key, len(levels)))):
            y, s = level.apply(p, (y, s, *lengths))
            last.append(s)
            for d, d_key in drops(i, k):
                y = d.apply((), y, key=d_key)
        return left(y, last)

    def fwd(params, x, *, key=None):
        params, y, states, lengths = entered(params, x)
        last, residuals, masks = [], [], []
        for i, (level, p, s, k) in enumerate(zip(levels, params, states, split_key(key, len(levels)))):
            (y, s), kept = level.fwd(p, (y, s, *lengths))
            last.append(s)
            residuals.append(kept)
            for d, d_key in drops(i, k):
                y, mask = d.fwd((), y, key=d_key)
                masks.append(mask)
        return left(y, last), (tuple(residuals), tuple(masks))

    def bwd(residuals, ct):
        residuals, masks = residuals
        if how.carry and (not isinstance(ct, tuple) or len(ct) != 2):
            raise TypeError(
                f"{name}: the cotangent must be a pair, (ct_y, that of the state), as the output is, got {describe(ct)}."
            )
        ct_y, ct_last = ct if how.carry else (ct, None)
        ct_lasts = (ct_last,) if alone else (None,) * len(levels) if ct_last is None else ct_last
        masks, ct_params, ct_states = list(masks), [], []
        for i, (level, kept, ct_s) in reversed(list(enumerate(zip(levels, residuals, ct_lasts)))):  # (A B)ᵀ = Bᵀ Aᵀ
            for d, _ in drops(i, None):
                _, ct_y = d.bwd(masks.pop(), ct_y)
            ct_p, (ct_y, ct_s, *_) = level.bwd(kept, (ct_y, ct_s))
            ct_params.insert(0, ct_p)
            ct_states.insert(0, ct_s)
        ct_state = ct_states[0] if alone else tuple(ct_states) if any(s is not None for s in ct_states) else None
        return ct_params[0] if alone else tuple(ct_params), cotangents(how, ct_y, ct_state)

    def walk(params, x, key):
        params, y, states, lengths = entered(params, x)
        found, last = [], []
        for i, (level, p, s, k) in enumerate(zip(levels, params, states, split_key(key, len(levels)))):
            p, (y, s) = yield Met(str(i), level, p, (y, s, *lengths), None)
            found.append(p)
            last.append(s)
            for d, d_key in drops(i, k):
                _, y = yield Met(f"{i}, dropped", d, (), y, d_key)
        return found[0] if alone else tuple(found), left(y, last)

    def remade(*parts):
        return stacked(name, list(parts[: len(levels)]), None if drop is None else parts[-1], how)

    return Layer(name, init, apply, fwd, bwd, (*levels, *(() if drop is None else (drop,))), walk, remade)
