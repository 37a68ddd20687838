"""How good predictions are: the share of correct classes, or R² of numbers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...data.dataset import Split
from ...linear import broadcast, widened

EXAMPLES = 10_000  # examples to score at a time
R2 = {"validation": "validation_r2", "test": "test_r2"}  # what an epoch measures for targets that are numbers


def _parts(n: int) -> list[slice]:
    return [slice(i, min(i + EXAMPLES, n)) for i in range(0, n, EXAMPLES)]


def make_accuracy(predict: Callable[..., Any]) -> Callable[[Any, Split], float]:
    """accuracy(params, split): the share of examples whose label has the largest score."""

    @jax.jit
    def right(params, x, y):
        return (predict(params, x).argmax(-1).astype(jnp.int32) == y).sum(dtype=jnp.int32)

    def accuracy(params, split):
        n = len(split.y)
        return sum(int(right(params, split.x[p], split.y[p])) for p in _parts(n)) / n if n else float("nan")

    return accuracy


def make_r2(predict: Callable[..., Any]) -> Callable[[Any, Split, Any], float]:
    """r2(params, split, y) = 1 - sum_i (y_i - p_i)^2 / sum_i (y_i - m)^2, p the predictions of split.x, m the mean of y.

    y: the targets of the split, (n,) or (n, k), on device or host; for k targets it is the mean of their R².  A target that
    is the same in all examples of the split has no R² and is left out; NaN if none is left.
    """

    @jax.jit
    def squares(params, x, y, deviation):
        found = widened(predict(params, x))
        apart = as_columns(y).astype(found.dtype) - found
        return ((apart / broadcast(deviation.astype(found.dtype), apart.shape)) ** 2).sum(0)

    def r2(params, split, y):
        y = np.asarray(y, np.float64)
        y = y[:, None] if y.ndim == 1 else y
        varies = y.min(0) < y.max(0) if len(y) else np.zeros(y.shape[1], bool)
        if not varies.any():
            return float("nan")
        deviation = np.where(varies, y.std(0), 1.0)  # divided before squaring, so that nothing overflows
        scale = np.asarray(deviation, np.float32)
        sums = [np.asarray(squares(params, split.x[p], split.y[p], scale), np.float64) for p in _parts(len(y))]
        return float((1.0 - sum(sums[1:], sums[0]) / len(y))[varies].mean())

    return r2


def as_columns(y: Any) -> Any:
    """Targets (n,) or (n, k) as float32 (n, k), like the outputs of a network."""
    y = y.astype(np.float32)
    return y[:, None] if y.ndim == 1 else y
