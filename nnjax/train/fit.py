"""The training loop."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..errors import describe, expect_key, expect_positive
from ..grad import ValueAndGrad
from .data import Dataset, Split, validated
from .step import TrainState, init_state, make_epoch, make_step


class Epoch(NamedTuple):
    """What an epoch came to. Accuracies are shares of 1 (NaN for an empty split); seconds leave the evaluation out."""

    epoch: int
    loss: float
    validation_accuracy: float
    test_accuracy: float
    seconds: float


class Fit(NamedTuple):
    """The last state, and a record of every epoch."""

    state: TrainState
    history: tuple[Epoch, ...]


def one_hot(classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """Labels (n,) -> float32 rows (n, classes), for losses that compare outputs with targets."""
    return lambda y: np.eye(classes, dtype=np.float32)[y]


def make_accuracy(predict: Callable) -> Callable[[Any, Split], float]:
    """accuracy(params, split): the share of examples whose largest score is at their label."""

    @jax.jit
    def right(params, x, y):
        return (predict(params, x).argmax(-1).astype(jnp.int32) == y).mean(dtype=jnp.float32)

    return lambda params, split: float(right(params, split.x, split.y)) if len(split.y) else float("nan")


def expect_batches(data: Dataset, batch_size: int, epochs: int) -> None:
    """Raise ValueError for a batch size or number of epochs that this data cannot give."""
    expect_positive("fit", batch_size=batch_size, epochs=epochs)
    if batch_size > len(data.train.y):
        raise ValueError(
            f"fit: batch_size must be at most the {len(data.train.y)} training examples of {data.name!r}, got {batch_size}; "
            "pass a smaller one."
        )


def fit(
    value_and_grad: ValueAndGrad,
    params: Any,
    data: Dataset,
    *,
    predict: Callable[[Any, Any], Any],
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int,
    key: jax.Array,
    encode: Callable[[np.ndarray], np.ndarray] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Fit:
    """Train for `epochs` epochs, each one compiled scan over data that stays on the device.

    value_and_grad(params, x, labels, *, weights=None, key=None) -> (value, grads), as `nnjax.value_and_grad` makes it.
    predict(params, x) -> scores (n, classes) for the accuracies; encode(labels) -> targets for losses that want other
    labels than class numbers (`one_hot`). Examples that fill no whole batch are left out of an epoch, others each time.
    Raises DataError for unusable data, ValueError for sizes that do not fit it, FloatingPointError once the loss is not
    finite.
    """
    if not isinstance(data, Dataset):
        raise TypeError(f"fit: data must be a train.Dataset, got {describe(data)}; make one, or use train.load(name).")
    if not hasattr(optimizer, "update"):
        raise TypeError(f"fit: optimizer must be one of optax's, got {describe(optimizer)}; pass e.g. optax.adam(0.001).")
    expect_key("fit", key)
    validated(data)
    outputs = jax.eval_shape(predict, params, data.train.x[:1]).shape[-1]
    if outputs != data.classes:
        raise ValueError(
            f"fit: predict must give one score for each of the {data.classes} classes of {data.name!r}, got {outputs}; "
            "make the last layer as wide as there are classes."
        )
    expect_batches(data, batch_size, epochs)
    x = jnp.asarray(data.train.x)
    labels = jnp.asarray(encode(data.train.y) if encode else data.train.y)
    validation, test = (Split(jnp.asarray(s.x), jnp.asarray(s.y)) for s in (data.validation, data.test))
    accuracy = make_accuracy(predict)
    state = init_state(params, optimizer, key)
    run = make_epoch(make_step(value_and_grad, optimizer), batch_size).lower(state, x, labels).compile()
    history = []
    for number in range(1, epochs + 1):
        start = time.perf_counter()
        state, loss = run(state, x, labels)
        loss = float(loss)
        seconds = time.perf_counter() - start
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"fit: the mean loss of epoch {number} is {loss}, so training has diverged; lower the learning rate."
            )
        record = Epoch(number, loss, accuracy(state.params, validation), accuracy(state.params, test), seconds)
        history.append(record)
        if on_epoch:
            on_epoch(record)
    return Fit(state, tuple(history))
