"""Attention on a CPU, without ever forming all products of queries with keys at once: the number of keys sets the spelling."""

import math
from functools import partial
from typing import Any

from jax import Array

from .. import attend_finite
from .attend_blocks import blocks_bwd, blocks_fwd
from .attend_rows import rows_bwd, rows_fwd

# (Largest number of keys, spelling, queries or keys at a time): from the bench cases `attention causal`, `attention S=...`.
ROWS, BLOCKS = "rows", "blocks"
SPELLINGS = (
    (64, ROWS, 32),
    (256, ROWS, 64),
    (1024, ROWS, 128),
    (math.inf, BLOCKS, 128),
)


def spelling(keys: int) -> tuple[str, int]:
    """(spelling, queries or keys at a time) for this many keys."""
    return next((how, n) for most, how, n in SPELLINGS if keys <= most)


def attend_fwd(q: Array, k: Array, v: Array, keep: Array | None, *, causal: bool) -> Any:
    """(y, log_z): the new arrays in the result of `nnjax.layers.attend.attend_fwd`, for the same arguments."""
    how, n = spelling(k.shape[-2])
    if how == ROWS:
        return rows_fwd(q, k, v, keep, causal=causal, block=n)
    return attend_finite.attend_fwd(q, k, v, keep, causal=causal, spelled=partial(blocks_fwd, block=n))


def attend_bwd(residuals: Any, ct_y: Array, *, causal: bool) -> Any:
    """As `nnjax.layers.attend.attend_bwd`."""
    how, n = spelling(residuals[1].shape[-2])
    if how == ROWS:
        return rows_bwd(residuals, ct_y, causal=causal, block=n)
    return attend_finite.attend_bwd(residuals, ct_y, causal=causal, spelled=partial(blocks_bwd, block=n))
