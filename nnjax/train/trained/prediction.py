"""Classes and probabilities, or numbers, predicted for raw rows."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...data.dataset import Split, scaled
from ...layer import Layer
from ..watching.scores import make_r2
from .record import NUMBERS, Record, Targets
from .rows import blocks, prepared, whole_rows

BLOCK = 8192  # rows to compute at a time


class Prediction(NamedTuple):
    """NumPy arrays, a row for each example.

    classes: int32, the class with the largest output; probabilities: float32 (..., classes), as the loss reads the outputs:
    for softmax_cross_entropy their softmax, which sums to 1; for other losses a number in 0 ... 1 for each class separately.
    outputs: float32 (..., classes), the outputs of the network.
    """

    classes: np.ndarray
    probabilities: np.ndarray
    outputs: np.ndarray


class Numbers(NamedTuple):
    """NumPy arrays, a row for each example, for targets that are numbers.

    numbers: float32 (...,), or (..., targets) if the targets had that shape, in their own units, also after
    --standardise-targets. outputs: float32 (..., targets), the outputs of the network.
    """

    numbers: np.ndarray
    outputs: np.ndarray


READ: dict[str, Callable[[jax.Array], jax.Array]] = {
    "softmax_cross_entropy": jax.nn.softmax,
    "binary_cross_entropy": jax.nn.sigmoid,
}  # the other losses compare the outputs themselves with 0 and 1


def predictor(model: Layer, record: Record) -> Callable[[Any, Any], Prediction | Numbers]:
    """predict(params, x) for raw rows, or a single one, on one device.

    Raises TypeError or DataError for invalid rows.
    """
    rows, targets, numbers = record.rows, record.targets, record.task == NUMBERS
    width = math.prod(targets.shape) if numbers else record.classes
    image = tuple(record.network.options.get("image", ()))
    read = READ.get(record.loss, lambda y: jnp.clip(y, 0, 1))

    @jax.jit
    def computed(params, x):
        y = model.apply(params, x.reshape(-1, *image) if image else x)
        return (y,) if numbers else (y, read(y), y.argmax(-1).astype(jnp.int32))

    def predict(params: Any, x: Any) -> Prediction | Numbers:
        found, single = whole_rows("predict", x, rows)
        n = len(found)
        outputs, probabilities = (np.empty((n, width), np.float32) for _ in range(2))
        classes = np.empty(n, np.int32)
        for at, size in blocks(n, BLOCK):
            x = prepared("predict", found[at], rows, at.start)
            filled = np.pad(x, ((0, size - len(x)), (0, 0)))
            for whole, part in zip((outputs, probabilities, classes), computed(params, filled)):
                whole[at] = part[: len(x)]
        made = Numbers(_own_units(outputs, targets), outputs) if numbers else Prediction(classes, probabilities, outputs)
        return type(made)(*(whole[0] for whole in made)) if single else made

    return predict


def _own_units(outputs: np.ndarray, targets: Targets) -> np.ndarray:
    found = outputs.reshape(len(outputs), *targets.shape)
    known = targets.moments
    return found if known is None else (known.mean + known.deviation * found).astype(np.float32)


def r2(found: Numbers, y: Any, targets: Targets) -> float:
    """R² of the predictions for targets y (n,) or (n, k), in their own units, computed as in training."""
    y = np.asarray(y, np.float32).reshape(len(found.outputs), *targets.shape)
    y = y if targets.moments is None else scaled(y, targets.moments)
    return make_r2(lambda _, outputs: outputs)((), Split(found.outputs, y), y)
