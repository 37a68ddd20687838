"""Classes and probabilities of raw rows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...layer import Layer
from .record import Record
from .rows import blocks, prepared, whole_rows

BLOCK = 8192  # rows that are computed at a time


class Prediction(NamedTuple):
    """NumPy arrays, a row for each example.

    classes: int32, the class with the largest output; probabilities: float32 (..., classes), as the loss reads the outputs: of
    softmax_cross_entropy their softmax, which sums to 1; of the others a number in 0 ... 1 for each class alone.
    outputs: float32 (..., classes), what the network gave.
    """

    classes: np.ndarray
    probabilities: np.ndarray
    outputs: np.ndarray


READ: dict[str, Callable[[jax.Array], jax.Array]] = {
    "softmax_cross_entropy": jax.nn.softmax,
    "binary_cross_entropy": jax.nn.sigmoid,
}  # the others compare the outputs themselves with 0 and 1


def predictor(model: Layer, record: Record) -> Callable[[Any, Any], Prediction]:
    """predict(params, x) -> Prediction of raw rows, or of a single one, on one device.

    Raises TypeError or DataError for what are no such rows.
    """
    rows, classes = record.rows, record.classes
    image = tuple(record.network.options.get("image", ()))
    read = READ.get(record.loss, lambda y: jnp.clip(y, 0, 1))

    @jax.jit
    def computed(params, x):
        y = model.apply(params, x.reshape(-1, *image) if image else x)
        return y.argmax(-1).astype(jnp.int32), read(y), y

    def predict(params: Any, x: Any) -> Prediction:
        found, single = whole_rows("predict", x, rows)
        n = len(found)
        made = Prediction(np.empty(n, np.int32), *(np.empty((n, classes), np.float32) for _ in range(2)))
        for at, size in blocks(n, BLOCK):
            x = prepared("predict", found[at], rows, at.start)
            filled = np.pad(x, ((0, size - len(x)), (0, 0)))
            for whole, part in zip(made, computed(params, filled)):
                whole[at] = part[: len(x)]
        return Prediction(*(whole[0] for whole in made)) if single else made

    return predict
