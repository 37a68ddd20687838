"""Prepare raw rows as they were prepared for training."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...data.dataset import DataError, scaled
from ...errors import describe
from .record import Rows


def whole_rows(who: str, x: Any, rows: Rows) -> tuple[np.ndarray, bool]:
    """(x as an array (n, features) of its own dtype, whether it was a single example).

    x: one example or several, each with the shape that it had in the data, or as one row.
    Raises TypeError if x does not hold numbers, DataError for examples of another shape.
    """
    found = _numbers(who, x)
    shape, width = rows.shape, math.prod(rows.shape)
    # Grey images come with or without the last axis.
    other = (*shape, 1) if len(shape) == 2 else shape[:2] if shape[2:] == (1,) else shape
    if found.shape in (shape, other) or (shape and found.shape == (width,)):
        return found.reshape(1, width), True
    if found.ndim and found.shape[1:] in (shape, (width,), other):
        return found.reshape(len(found), width), False
    wanted = f"(n, {width})" if len(shape) < 2 else f"(n, {', '.join(map(str, shape))}) or (n, {width})"
    raise DataError(
        f"{who}: x must have shape {wanted}, like the examples that the network was trained on, got {describe(found)}; "
        "give it the same features."
    )


def _numbers(who: str, x: Any) -> np.ndarray:
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{who}: x must be an array of numbers, got a masked one; fill it, as in x.filled(0).")
    try:
        found = np.asarray(x)
    except (TypeError, ValueError):  # a key of jax.random, or rows of different lengths
        raise TypeError(f"{who}: x must be an array of numbers, got {describe(x)}; convert it with np.asarray.") from None
    if found.dtype.kind not in "biuf" and not jnp.issubdtype(found.dtype, jnp.floating):
        raise TypeError(f"{who}: x must be an array of real numbers, got {describe(found)}; convert it.")
    return found


def prepared(who: str, x: np.ndarray, rows: Rows, first: int = 0) -> np.ndarray:
    """float32 (n, features), prepared as in training; first: the number of the first row, for errors.

    Whole numbers are scaled like those in the data files, floating-point numbers are taken as `load` returns them; both are
    standardised if the training examples were.
    Raises DataError for numbers that are not finite, or have another scale.
    """
    if rows.scale != 1:
        _expect_scaled(who, x, rows.scale)
    with np.errstate(over="ignore"):
        narrow = x.astype(np.float32)  # first of all, as in `load`
    bad = np.flatnonzero(~np.isfinite(narrow).all(1))
    if len(bad):
        raise DataError(
            f"{who}: every number must be finite and below 3.4e38, but {len(bad)} rows have others, the first is row "
            f"{first + bad[0]}; remove these rows or replace the values."
        )
    if rows.scale != 1 and x.dtype.kind in "iu":
        narrow = narrow / np.float32(rows.scale)
    return narrow if rows.moments is None else scaled(narrow, rows.moments)


def _expect_scaled(who: str, x: np.ndarray, scale: int) -> None:
    least, most = (float(f(initial=0)) for f in (x.min, x.max)) if x.dtype.kind != "b" else (0.0, 1.0)
    if x.dtype.kind in "iu" and not 0 <= least <= most <= scale:
        raise DataError(f"{who}: whole numbers must be pixels in 0 ... {scale}, got {least:g} to {most:g}; scale them.")
    if x.dtype.kind not in "iub" and scale / 2 < most < math.inf:
        raise DataError(
            f"{who}: pixels in floating point must lie in 0 ... 1, as train.load gives them, got up to {most:g}; divide them "
            f"by {scale}, or pass whole numbers."
        )


def blocks(n: int, most: int) -> Sequence[tuple[slice, int]]:
    """Slices of n rows, at most `most` each, with the power of two that each is padded to, so that few sizes are compiled."""
    cut = [slice(i, min(i + most, n)) for i in range(0, n, most)]
    return [(s, 1 << (s.stop - s.start - 1).bit_length()) for s in cut]
