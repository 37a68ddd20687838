"""The gradient of a linear map and its cross-entropy on a GPU: a few chunks of rows, each large enough to fill the card."""

from collections.abc import Callable
from typing import Any

from jax import Array, lax

from ...linear import pad
from ..by_rows import zeros_like

CHUNK_BYTES = 2**26  # of outputs that exist at a time: bench case `linear_cross_entropy, V = 32768`, compiled for an H100


def rows_at_a_time(n: int, vocab: int) -> int:
    """Rows in a chunk, out of n: at most CHUNK_BYTES of float32 outputs but at least 128 rows, in equal chunks."""
    most = max(128, CHUNK_BYTES // (4 * vocab))
    return -(-n // -(-n // most)) if n else 1


def gradient_of_rows(
    rows: Array, w: Array, labels: Array, share: Array, *, plain: Callable[..., Any]
) -> tuple[Array, Array, Array]:
    """Like `nnjax.losses.fused.gradient_of_rows`, which is `plain`, for one chunk after another."""
    n = rows.shape[0]
    size = rows_at_a_time(n, w.shape[0])
    if size >= n:
        return plain(rows, w, labels, share)

    def chunks(t):
        t = pad(t, ((0, -n % size), *((0, 0),) * (t.ndim - 1)))
        return t.reshape(t.shape[0] // size, size, *t.shape[1:])  # not -1: a width may be 0

    def step(ct_w, chunk):
        losses, ct_h, more = plain(chunk[0], w, *chunk[1:])
        return ct_w + more, (losses, ct_h)

    ct_w, (losses, ct_h) = lax.scan(step, zeros_like(w, share.dtype), (chunks(rows), chunks(labels), chunks(share)))
    return losses.reshape(losses.size)[:n], ct_h.reshape(losses.size, rows.shape[1])[:n], ct_w
