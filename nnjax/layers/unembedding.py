"""The way back from features to ids with the table of an embedding: the head of a tied model."""

from ..errors import describe, expect_flag, expect_float, expect_params, expect_positive, expect_same_dtype
from ..layer import Layer
from ..leaf import Like, leaf, outline, outlined
from ..linear import fold
from .embedding import EmbeddingParams, embedding


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


def unembedding_apply(params, h, *, key=None):
    """y = h tableᵀ: each id's score is the product of h with its row.  h: (..., n), table: (vocab, n), y: (..., vocab)."""
    _expect_unembedding(params, h)
    return h @ params.table.T


def unembedding_fwd(params, h, *, key=None):
    return unembedding_apply(params, h), (params, h)


def unembedding_bwd(residuals, ct_y):
    params, h = residuals
    return EmbeddingParams(fold(ct_y).T @ fold(h)), ct_y @ params.table  # dense with w = tableᵀ, whose transpose is the table


def _output(residuals):
    params, h = residuals
    return Like((*h.shape[:-1], params.table.shape[0]), h.dtype)


def fused_unembedding_apply(params, h, *, key=None):
    """(h, table), for `linear_cross_entropy` to multiply."""
    _expect_unembedding(params, h)
    return h, params.table


def fused_unembedding_fwd(params, h, *, key=None):
    return fused_unembedding_apply(params, h), (outline(h), outline(params.table))


def fused_unembedding_bwd(residuals, ct_y):
    ct_h, ct_table = ct_y  # nothing was done to them
    return EmbeddingParams(ct_table), ct_h


def unembedding(vocab: int, n: int, *, fused: bool = False) -> Layer:
    """y = h tableᵀ, or with `fused` the pair (h, table) for `linear_cross_entropy`.  h: (..., n), table: (vocab, n).

    Its parameters are those of `embedding(vocab, n)`, with whose table it shares them under `tied`.
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
    return leaf(name, init, unembedding_apply, unembedding_fwd, unembedding_bwd, _output)
