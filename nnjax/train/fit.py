"""Training on examples with labels."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..data.dataset import Dataset, Split, expect_dataset, validated
from ..errors import describe, expect_arrays, expect_callable, expect_flag, expect_key, expect_positive, is_array
from ..grad import ValueAndGrad
from ..layers.normalising.running import Running
from .loop import Batches, loop
from .placement import ONE_DEVICE, Placement
from .run import Checkpoints, Fit, OnEpoch, OnSteps
from .step import (
    TrainState,
    epoch_key,
    examples,
    expect_optimizer,
    expect_running,
    expect_value_and_grad,
    make_step,
    shuffled,
)
from .stream import DEVICE_BYTES, streamed
from .watching.scores import R2, as_columns, make_accuracy, make_r2


def one_hot(classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """Labels (n,) -> float32 rows (n, classes), for losses that compare outputs with targets.

    Raises ValueError or TypeError for labels that are not integers in 0 ... classes - 1.

    >>> import numpy as np
    >>> nnjax.train.one_hot(3)(np.array([0, 2])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    (classes,) = expect_positive("one_hot", classes=classes)

    def encode(y):
        try:
            y = y if is_array(y) else np.asarray(y)
        except ValueError:
            raise ValueError("one_hot: labels must be one number for each example, got rows of different lengths.") from None
        if not jnp.issubdtype(y.dtype, jnp.integer):
            raise TypeError(f"one_hot: labels must be integers, got {describe(y)}; convert them with astype(np.int32).")
        if y.size and (y.min() < 0 or y.max() >= classes):
            raise ValueError(f"one_hot: labels must lie in 0 ... {classes - 1}, got {y.min()} to {y.max()}; pass more classes.")
        return np.eye(classes, dtype=np.float32)[np.asarray(y)]

    return encode


def expect_options(
    who: str, functions: Mapping[str, Any], checkpoints: Any, patience: Any, skipping: Any, placement: Any
) -> None:  # fmt: skip
    """Raise TypeError or ValueError for options that no run can have. functions: by name, None for those not given."""
    for name, f in functions.items():
        if f is not None:
            expect_callable(who, name, f, "leave it out if you do not need it")
    if checkpoints is not None and not isinstance(checkpoints, Checkpoints):
        came = repr(checkpoints) if isinstance(checkpoints, str) else describe(checkpoints)
        raise TypeError(
            f"{who}: checkpoints must be train.Checkpoints, got {came}; pass train.Checkpoints({came}) for a folder."
        )
    if patience is not None:
        expect_positive(who, patience=patience)
    expect_flag(who, skipping=skipping)
    if not isinstance(placement, Placement):
        raise TypeError(
            f"{who}: placement must be a train.placement.Placement, got {describe(placement)}; leave it out for one device."
        )


def expect_batches(data: Dataset, batch_size: int, epochs: int) -> None:
    """Raise ValueError for a batch size or a number of epochs that does not fit this data."""
    expect_positive("fit", batch_size=batch_size, epochs=epochs)
    if batch_size > len(data.train.y):
        raise ValueError(
            f"fit: batch_size must be at most the {len(data.train.y)} training examples of {data.name!r}, got {batch_size}; "
            "pass a smaller one."
        )


def _on_device(data: Dataset, batch_size: int, encode: Callable[..., Any] | None) -> Batches:
    x, labels = jnp.asarray(data.train.x), jnp.asarray(encode(data.train.y) if encode else data.train.y)

    def order(key, first):
        return shuffled(epoch_key(key, first), len(x), batch_size)

    return Batches((x, labels), examples, order, len(x) // batch_size)


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
    on_epoch: OnEpoch | None = None,
    on_steps: OnSteps | None = None,
    checkpoints: Checkpoints | None = None,
    measure: Callable[[TrainState], Mapping[str, Any]] | None = None,
    evaluated: Callable[[TrainState], Any] = lambda state: state.params,
    patience: int | None = None,
    where: Callable[..., str] | None = None,
    skipping: bool = False,
    streaming: bool | None = None,
    placement: Placement = ONE_DEVICE,
    running: Running | None = None,
) -> Fit:
    """Train for `epochs` epochs, each a few compiled scans over data that stays on the device.

    value_and_grad(params, x, labels, *, weights=None, key=None) -> (value, grads), as `nnjax.value_and_grad` makes it.
    predict(params, x) -> scores (n, classes) for the accuracies; encode(labels) -> targets for losses that want something
    other than class numbers (`one_hot`).  Targets that are numbers, (n,) or (n, k), reach the loss as (n, k), the shape that
    predict gives. Their accuracies are NaN, and each Epoch measures R² (see `scores.make_r2`): "validation_r2", "test_r2".
    An epoch leaves out the examples that do not fill a whole batch, different ones each time.
    With `checkpoints` the run is saved as it goes, and SIGINT and SIGTERM stop it after the current scan and save it.
    Resumed on the same machine, it ends with the same parameters as an uninterrupted run, bit for bit.
    on_steps(steps taken, mean loss of the last ones): called once everything is compiled, and after each scan.
    measure(state) -> numbers kept in each Epoch; evaluated(state): the parameters that are scored, e.g. their average.
    patience: stop after this many epochs without a better validation (or test) accuracy.  where: names the layer at which a
    number that is not finite first appears (see `first_not_finite`).  skipping: the optimizer skips gradients that are not
    finite (`optax.apply_if_finite`), so such a loss does not stop the run.  streaming: read the training examples batch by
    batch rather than put them on the device, by default if they take more than 2 GiB.
    placement: for several devices that share each batch; each reads only its part.
    running: `nnjax.running_statistics(model)`; the state carries them, and the parameters are scored with them in place. They
    are those of the whole batch, so they need one device.
    Raises DataError for unusable data, ValueError for sizes that do not fit it, FloatingPointError if the loss is not
    finite, CheckpointError if the run cannot be saved or resumed.

    >>> import optax
    >>> digits, model = nnjax.train.load("digits"), nnjax.mlp([64, 32, 10], nnjax.relu())
    >>> done = nnjax.train.fit(
    ...     nnjax.value_and_grad(model, nnjax.softmax_cross_entropy()), model.init(jax.random.key(0)), digits,
    ...     predict=model.apply, optimizer=optax.adam(0.003), epochs=2, batch_size=32, key=jax.random.key(1),
    ... )
    >>> len(done.history), done.history[-1].test_accuracy > 0.5
    (2, True)
    """
    expect_dataset("fit", data)
    expect_value_and_grad("fit", value_and_grad)
    expect_callable("fit", "predict", predict, "pass the model's apply, as in predict=model.apply")
    expect_optimizer("fit", optimizer)
    functions = {
        "encode": encode,
        "on_epoch": on_epoch,
        "on_steps": on_steps,
        "measure": measure,
        "where": where,
        "evaluated": evaluated,
    }
    expect_options("fit", functions, checkpoints, patience, skipping, placement)
    if streaming is not None:
        expect_flag("fit", streaming=streaming)
    expect_arrays("fit", "params", params, "make them with model.init(key)")
    expect_key("fit", key)
    validated(data)
    scores = jax.eval_shape(predict, params, data.train.x[:1])
    if getattr(scores, "shape", ())[-1:] != (data.outputs,):
        what = (
            f"number for each of the {data.outputs} targets"
            if data.regression
            else f"score for each of the {data.classes} classes"
        )
        raise ValueError(
            f"fit: predict must give one {what} of {data.name!r}, got {describe(scores)}; make the last layer as wide as there "
            f"are {'targets' if data.regression else 'classes'}."
        )
    if data.regression and encode is None:
        encode = as_columns
    expect_batches(data, batch_size, epochs)
    expect_running("fit", running)
    if running is not None and placement is not ONE_DEVICE:
        raise ValueError(
            "fit: running statistics are those of a whole batch on one device, got a placement on several; leave one out."
        )
    placement.expect_batch("fit", batch_size)
    large = streaming is None and data.train.x.nbytes > DEVICE_BYTES
    if streaming or large or placement is not ONE_DEVICE:
        batches = streamed(data.train.x, data.train.y, batch_size, encode, placement)
    else:
        batches = _on_device(data, batch_size, encode)
    validation, test = (Split(*(placement.everywhere(a) for a in s)) for s in (data.validation, data.test))
    accuracy, r2 = make_accuracy(placement.predicting(predict)), make_r2(placement.predicting(predict))

    def score(state):
        params = evaluated(state) if running is None else running.frozen(evaluated(state), state.running)
        measured = {name: float(v) for name, v in measure(state).items()} if measure else {}
        if data.regression:
            parts = {"validation": (validation, data.validation.y), "test": (test, data.test.y)}
            return math.nan, math.nan, {R2[part]: r2(params, *split) for part, split in parts.items()} | measured
        return accuracy(params, validation), accuracy(params, test), measured

    start = placement.state(params, optimizer, key)
    start = start if running is None else start._replace(running=running.init(start.params))
    return loop(
        make_step(value_and_grad, optimizer, running), start, batches, epochs, score,
        checkpoints=checkpoints, on_epoch=on_epoch, on_steps=on_steps, patience=patience, where=where, skipping=skipping,
        placement=placement,
    )  # fmt: skip
