"""Tables: rows selected by integer ids, and rows added by position."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from ..errors import (
    describe,
    expect_flag,
    expect_float,
    expect_init,
    expect_params,
    expect_positive,
    expect_same_dtype,
    expect_shape,
    is_array,
)
from ..layer import Layer
from ..leaf import Like, leaf, outline, outlined
from ..linear import broadcast, broadcast_t, fold, leading, leading_t, scatter_add, take


class EmbeddingParams(NamedTuple):
    """table: (vocab, n), or (context, n) for positions."""

    table: Array

    WEIGHTS = ("table",)


def _expect_ids(x, vocab: int) -> None:
    if not is_array(x) or not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"embedding: ids must be integers, got {describe(x)}; convert them with "
                        "jnp.asarray(x, jnp.int32).")  # fmt: skip
    if isinstance(x, Tracer):
        return  # values exist only at run time: an id out of range then gives a NaN row and no gradient
    ids = np.asarray(x)
    wrong = ids[(ids < 0) | (ids >= vocab)]
    if wrong.size:
        raise ValueError(f"embedding: ids must lie in 0 ... {vocab - 1}, as the table has {vocab} rows, got {wrong[0]}; "
                         "correct it, or make the layer with a larger vocab.")  # fmt: skip


def embedding_apply(params: Any, x: Array) -> Array:
    """y = the rows of table whose numbers are x.  x: integers (...), table: (vocab, n), y: (..., n)."""
    return take(params.table, x)


def embedding_fwd(params: Any, x: Array) -> Any:
    return embedding_apply(params, x), (x,)


def embedding_bwd(residuals: Any, ct_y: Array, vocab: int) -> Any:
    (ids,) = residuals  # y = P table with one 1 in each row of P: Pᵀ sends every row of ct_y to its id, where they add up
    return EmbeddingParams(scatter_add(ct_y, ids, vocab)), None


def embedding(vocab: int, n: int, *, init: Callable[..., Array] | None = None) -> Layer[Array]:
    """y = table[x].  x: integers (...) in 0 ... vocab-1, table: (vocab, n), y: (..., n).

    init(key, shape, dtype) makes the table: by default normal with standard deviation 1 / sqrt(n), so that a row has length
    about 1.  Raises TypeError for ids that are not integers, ValueError for an id out of range whose value is known; under
    `jit` its row is NaN, and no row has a gradient from it.
    """
    vocab, n = expect_positive("embedding", vocab=vocab, n=n)
    init = jax.nn.initializers.normal(n**-0.5) if init is None else init
    expect_init("embedding", init)

    def checked(params, x):
        expect_params("embedding", params, EmbeddingParams)
        expect_float("embedding", "table", params.table)
        expect_shape("embedding", "table", params.table, (vocab, n))
        _expect_ids(x, vocab)
        return params, x

    return leaf(
        f"embedding({vocab}, {n})",
        lambda key: EmbeddingParams(init(key, (vocab, n), jnp.float32)),
        lambda params, x, *, key=None: embedding_apply(*checked(params, x)),
        lambda params, x, *, key=None: embedding_fwd(*checked(params, x)),
        lambda residuals, ct_y: embedding_bwd(residuals, ct_y, vocab),
        lambda residuals: Like((*residuals[0].shape, n)),
    )


def learned_positions_apply(params: Any, x: Array) -> Array:
    """y_t = x_t + table_t.  x, y: (..., T, n), table: (context, n) with T <= context."""
    return x + broadcast(leading(params.table, x.shape[-2]), x.shape)


def learned_positions_fwd(params: Any, x: Array) -> Any:
    return learned_positions_apply(params, x), (outline(x),)


def learned_positions_bwd(residuals: Any, ct_y: Array, context: Any) -> Any:
    # The table is cut to its first T rows, then copied to every example: sum over the examples, then pad with zeros.
    return EmbeddingParams(leading_t(broadcast_t(ct_y, ct_y.shape[-2:]), context)), ct_y


def learned_positions(context: int, n: int, *, init: Callable[..., Array] | None = None) -> Layer[Array]:
    """y = x + the first T rows of a table.  x, y: (..., T, n), table: (context, n).

    init(key, shape, dtype) makes the table: by default normal with standard deviation 0.02.
    Raises ValueError for T > context and features that are not n, TypeError for another dtype.
    """
    context, n = expect_positive("learned_positions", context=context, n=n)
    name = "learned_positions"
    init = jax.nn.initializers.normal(0.02) if init is None else init
    expect_init(name, init)

    def checked(params, x):
        expect_params(name, params, EmbeddingParams)
        expect_float(name, "table", params.table)
        expect_shape(name, "table", params.table, (context, n))
        expect_float(name, "x", x)
        if x.ndim < 2 or x.shape[-1] != n:
            raise ValueError(f"{name}: x must have shape (..., time, {n}), got {describe(x)}; time is the last axis but one.")
        if x.shape[-2] > context:
            raise ValueError(f"{name}: x must have at most {context} steps, the context, got {describe(x)}; "
                             "cut x, or make the layer with a larger context.")  # fmt: skip
        expect_same_dtype(name, "x", x, "table", params.table)
        return params, x

    return leaf(
        f"{name}({context}, {n})",
        lambda key: EmbeddingParams(init(key, (context, n), jnp.float32)),
        lambda params, x, *, key=None: learned_positions_apply(*checked(params, x)),
        lambda params, x, *, key=None: learned_positions_fwd(*checked(params, x)),
        lambda residuals, ct_y: learned_positions_bwd(residuals, ct_y, context),
        lambda residuals: outlined(residuals[0]),
    )


def _expect_unembedding(params, h) -> None:
    expect_params("unembedding", params, EmbeddingParams)
    expect_float("unembedding", "h", h)
    expect_float("unembedding", "table", params.table)
    if params.table.ndim != 2:
        raise ValueError(
            f"unembedding: table must have shape (vocab, n), got {describe(params.table)}; make it with layer.init(key)."
        )
    n = params.table.shape[1]
    if h.ndim < 1 or h.shape[-1] != n:
        raise ValueError(
            f"unembedding: h must have {n} features in its last axis, as the table has, got {describe(h)}; "
            f"pass h of shape (..., {n})."
        )
    expect_same_dtype("unembedding", "h", h, "table", params.table)


def unembedding_apply(params: Any, h: Array, *, key: Any = None) -> Array:
    """y = h tableᵀ: each id's score is the product of h with its row.  h: (..., n), table: (vocab, n), y: (..., vocab)."""
    _expect_unembedding(params, h)
    return h @ params.table.T


def unembedding_fwd(params: Any, h: Array, *, key: Any = None) -> Any:
    return unembedding_apply(params, h), (params, h)


def unembedding_bwd(residuals: Any, ct_y: Array) -> Any:
    params, h = residuals
    return EmbeddingParams(fold(ct_y).T @ fold(h)), ct_y @ params.table  # dense with w = tableᵀ, whose transpose is the table


def fused_unembedding_apply(params: Any, h: Array, *, key: Any = None) -> Any:
    """(h, table), for `linear_cross_entropy` to multiply."""
    _expect_unembedding(params, h)
    return h, params.table


def fused_unembedding_fwd(params: Any, h: Array, *, key: Any = None) -> Any:
    return fused_unembedding_apply(params, h), (outline(h), outline(params.table))


def fused_unembedding_bwd(residuals: Any, ct_y: Array) -> Any:
    ct_h, ct_table = ct_y  # they pass unchanged
    return EmbeddingParams(ct_table), ct_h


@overload
def unembedding(vocab: int, n: int, *, fused: Literal[False] = False) -> Layer[Array]: ...
@overload
def unembedding(vocab: int, n: int, *, fused: bool) -> Layer: ...


def unembedding(vocab: int, n: int, *, fused: bool = False) -> Layer:
    """y = h tableᵀ, or with `fused` the pair (h, table) for `linear_cross_entropy`.  h: (..., n), table: (vocab, n).

    Its parameters are those of `embedding(vocab, n)`, so that `tied` can share one table between both.
    Raises TypeError or ValueError for other parameters, or an h of other features.
    """
    vocab, n = expect_positive("unembedding", vocab=vocab, n=n)
    expect_flag("unembedding", fused=fused)
    name = f"unembedding({vocab}, {n})"

    init = embedding(vocab, n).init
    if fused:
        return leaf(
            name, init, fused_unembedding_apply, fused_unembedding_fwd, fused_unembedding_bwd,
            lambda residuals: (outlined(residuals[0]), outlined(residuals[1])),
        )  # fmt: skip
    return leaf(name, init, unembedding_apply, unembedding_fwd, unembedding_bwd, _unembedded)


def _unembedded(residuals):
    params, h = residuals
    return Like((*h.shape[:-1], params.table.shape[0]), h.dtype)
