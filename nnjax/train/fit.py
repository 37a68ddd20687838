"""The training loop: an epoch is a few compiled scans over shuffled minibatches, and between two the run can be saved.

Where a scan ends depends on the sizes alone, and the order of an epoch on the key and its first step: so a run that was
stopped, or killed, and resumed goes through the same programs on the same rows as one that was not.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..errors import describe, expect_key, expect_positive
from ..grad import ValueAndGrad
from .checkpoint import CheckpointError, restore, save, steps
from .dataset import Dataset, Split, validated
from .step import TrainState, epoch_key, init_state, make_step, make_steps, shuffled
from .stopping import stoppable

FLOPS = 1e10  # of one compiled scan: between two a run can be stopped. A second or so on a slow CPU.


class Epoch(NamedTuple):
    """What an epoch came to. Accuracies are shares of 1 (NaN for an empty split); seconds leave the evaluation out."""

    epoch: int
    loss: float
    validation_accuracy: float
    test_accuracy: float
    seconds: float


class Fit(NamedTuple):
    """The last state, a record of every epoch, and the name of the signal that stopped the run, or ""."""

    state: TrainState
    history: tuple[Epoch, ...]
    stopped: str = ""


class Checkpoints(NamedTuple):
    """Where a run is saved.  every: after how many steps, or each epoch; keep: how many of the newest stay, beside the one
    of the best validation (or test) accuracy; configuration: what a run that resumes must share; resume: go on from the
    newest sound one, from the beginning where nothing was saved yet; on_note: told of those that are damaged.
    """

    folder: str | Path
    every: int | None = None
    keep: int = 3
    configuration: Mapping = {}
    resume: bool = False
    on_note: Callable[[str], None] | None = None


class _Progress(NamedTuple):
    """Of a run: its records, and of the epoch under way the sum of the losses so far and the seconds."""

    history: tuple[Epoch, ...] = ()
    loss: float = 0.0
    seconds: float = 0.0


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


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Raise CheckpointError where another run holds this folder; until the end, or death, of this one others are refused."""
    try:
        import filelock
    except ImportError:
        raise CheckpointError("checkpoints need the train extra: python -m pip install 'nnjax[train]'.") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise CheckpointError(f"{folder} is in use by another run; wait for its end or choose another folder.") from None
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written to: {error}; choose another folder.") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _held(checkpoints: Checkpoints | None) -> Iterator[Callable[[], str]]:
    """What `stoppable` gives, with the folder to itself; a run that is not saved is ended by signals as ever."""
    if checkpoints is None:
        yield lambda: ""
        return
    with _alone(Path(checkpoints.folder)), stoppable() as stopped:
        yield stopped


def _begin(checkpoints: Checkpoints, state: TrainState) -> tuple[TrainState, _Progress]:
    """Where the run stands: at its beginning, or as it was last saved."""
    saved = steps(checkpoints.folder)
    if not saved:
        return state, _Progress()
    if not checkpoints.resume:
        raise CheckpointError(
            f"{checkpoints.folder} has checkpoints up to step {saved[-1]}; resume from them, or choose another folder."
        )
    found = restore(checkpoints.folder, state, configuration=checkpoints.configuration)
    for note in found.skipped:
        if checkpoints.on_note:
            checkpoints.on_note(f"{note}; going on from step {found.step}")
    m = found.metrics
    if "history" not in m:
        raise CheckpointError(f"{checkpoints.folder} holds no run of fit, but what train.save wrote; choose another folder.")
    return found.state, _Progress(tuple(Epoch(*record) for record in m["history"]), m["loss"], m["seconds"])


def _save(checkpoints: Checkpoints, state: TrainState, step: int, done: _Progress) -> None:
    score = None
    if done.history:
        last = done.history[-1]
        score = last.validation_accuracy if last.validation_accuracy == last.validation_accuracy else last.test_accuracy
    metrics = {"accuracy": score, "history": done.history, "loss": done.loss, "seconds": done.seconds}
    save(checkpoints.folder, state, step=step, configuration=checkpoints.configuration, metrics=metrics,
         keep=checkpoints.keep, best="accuracy")  # fmt: skip


def _steps_in_a_call(step: Callable, state: TrainState, x, labels, batch_size: int, most: int) -> int:
    """As many as make up FLOPS of floating-point work, where XLA knows how much a step is."""
    cost = jax.jit(step).lower(state, x[:batch_size], labels[:batch_size]).cost_analysis()
    flops = cost.get("flops", 0.0) if isinstance(cost, dict) else 0.0
    return min(most, max(1, int(FLOPS / flops))) if flops > 0 else most


def _expect_finite(values: np.ndarray, state: TrainState, epoch: int) -> None:
    if np.isfinite(values).all():
        return
    first = int(np.argmin(np.isfinite(values)))
    bad = next((p for p, w in jax.tree_util.tree_leaves_with_path(state.params) if not bool(jnp.isfinite(w).all())), None)
    where = "" if bad is None else f"; the first parameter that is not finite is params{jax.tree_util.keystr(bad)}"
    raise FloatingPointError(
        f"fit: the loss of epoch {epoch} is {values[first]}, so training has diverged{where}; lower the learning rate."
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
    checkpoints: Checkpoints | None = None,
) -> Fit:
    """Train for `epochs` epochs, each a few compiled scans over data that stays on the device.

    value_and_grad(params, x, labels, *, weights=None, key=None) -> (value, grads), as `nnjax.value_and_grad` makes it.
    predict(params, x) -> scores (n, classes) for the accuracies; encode(labels) -> targets for losses that want other
    labels than class numbers (`one_hot`). Examples that fill no whole batch are left out of an epoch, others each time.
    With `checkpoints` the run is saved as it goes; SIGINT and SIGTERM then end it after the scan under way, and save it.
    Resumed on the same machine, it ends with the parameters of a run that was never stopped, bit for bit.
    Raises DataError for unusable data, ValueError for sizes that do not fit it, FloatingPointError once the loss is not
    finite, CheckpointError where the run cannot be saved or resumed.
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
    if checkpoints is not None and checkpoints.every is not None:
        expect_positive("checkpoints", every=checkpoints.every)
    with _held(checkpoints) as stopped:
        x = jnp.asarray(data.train.x)
        labels = jnp.asarray(encode(data.train.y) if encode else data.train.y)
        validation, test = (Split(jnp.asarray(s.x), jnp.asarray(s.y)) for s in (data.validation, data.test))
        accuracy = make_accuracy(predict)
        state, done = init_state(params, optimizer, key), _Progress()
        if checkpoints is not None:
            state, done = _begin(checkpoints, state)
        at = saved = int(state.step)
        per_epoch = len(x) // batch_size
        every = per_epoch if checkpoints is None or checkpoints.every is None else checkpoints.every
        step = make_step(value_and_grad, optimizer)
        most = _steps_in_a_call(step, state, x, labels, batch_size, min(per_epoch, every))
        sizes = {most, per_epoch % most} - {0}
        run = jax.jit(make_steps(step), donate_argnums=0)
        runs = {n: run.lower(state, x, labels, jnp.zeros((n, batch_size), jnp.int32)).compile() for n in sizes}
        order = jax.jit(lambda key, first: shuffled(epoch_key(key, first), len(x), batch_size).astype(jnp.int32))
        rows, why = None, ""
        while at < epochs * per_epoch and not why:
            epoch, offset = divmod(at, per_epoch)
            if rows is None or offset == 0:
                rows = np.asarray(order(state.key, at - offset))
            start = time.perf_counter()
            n = min(most, per_epoch - offset)
            state, values = runs[n](state, x, labels, rows[offset : offset + n])
            values = np.asarray(values)
            seconds = done.seconds + time.perf_counter() - start
            done = done._replace(loss=done.loss + float(values.sum(dtype=np.float64)), seconds=seconds)
            _expect_finite(values, state, epoch + 1)
            at += n
            if offset + n == per_epoch:
                by_validation, by_test = (accuracy(state.params, part) for part in (validation, test))
                record = Epoch(epoch + 1, done.loss / per_epoch, by_validation, by_test, done.seconds)
                done = _Progress((*done.history, record))
                if on_epoch:
                    on_epoch(record)
            why = stopped()
            if checkpoints is not None and (why or at - saved >= every or at == epochs * per_epoch):
                _save(checkpoints, state, at, done)
                saved = at
        return Fit(state, done.history, why if at < epochs * per_epoch else "")
