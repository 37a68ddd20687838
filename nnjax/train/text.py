"""Training on text, character by character, in windows from random places."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..data.dataset import DataError
from ..data.text import Text
from ..errors import describe, expect_arrays, expect_callable, expect_key, expect_positive
from ..grad import ValueAndGrad
from ..linear import wide
from .fit import expect_options
from .loop import Batches, loop
from .placement import ONE_DEVICE, Placement
from .run import Checkpoints, Fit, OnEpoch, OnSteps
from .step import TrainState, epoch_key, expect_optimizer, expect_value_and_grad, make_step

WINDOWS = 32  # windows to predict at a time: many more would allocate new memory for each batch


def windows(ids: jax.Array, starts: jax.Array, context: int) -> tuple[jax.Array, jax.Array]:
    """(x, labels), both (n, context): the characters from each start on, and for each the one that follows."""
    at = starts[:, None] + jnp.arange(context, dtype=jnp.int32)[None]
    return ids[at], ids[at + 1]


def expect_window(text: Text, context: int) -> None:
    """Raise DataError for a text that is too short for one window."""
    if len(text.train) <= context:
        raise DataError(
            f"text {text.name!r}: a window needs {context + 1} characters, got {len(text.train)} to train on; "
            "shorten the context."
        )


def make_evaluate(predict: Callable[..., Any], ids: jax.Array, context: int) -> Callable[[Any], tuple[float, float]]:
    """evaluate(params) -> (mean cross-entropy, share of characters predicted right), over all whole windows side by side."""
    count = (len(ids) - 1) // context
    starts = np.arange(count, dtype=np.int32) * context

    @jax.jit
    def sums(params, ids, starts):
        x, labels = windows(ids, starts, context)
        scores = predict(params, x)
        scores = scores.astype(wide(scores))
        losses = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
        return losses.sum(), (scores.argmax(-1).astype(jnp.int32) == labels).sum(dtype=jnp.int32)

    def evaluate(params):
        loss, right, n = 0.0, 0, count * context
        for i in range(0, count, WINDOWS):  # one after another: simulated devices with several to do may wait for ever
            a, b = sums(params, ids, starts[i : i + WINDOWS])
            loss, right = loss + float(a), right + int(b)
        return (loss / n, right / n) if n else (float("nan"), float("nan"))

    return evaluate


def fit_text(
    value_and_grad: ValueAndGrad, params: Any, text: Text, *, predict: Callable[[Any, Any], Any],
    optimizer: optax.GradientTransformation, steps: int, context: int, batch_size: int, key: jax.Array, every: int = 250,
    on_epoch: OnEpoch | None = None, on_steps: OnSteps | None = None, checkpoints: Checkpoints | None = None,
    measure: Callable[[TrainState], Mapping[str, Any]] | None = None,
    evaluated: Callable[[TrainState], Any] = lambda state: state.params, patience: int | None = None,
    where: Callable[..., str] | None = None, skipping: bool = False, placement: Placement = ONE_DEVICE,
) -> Fit:  # fmt: skip
    """Train for `steps` steps on random windows of `context` characters, batch_size at a time; the rest as in `fit`.

    Every `every` steps count as an epoch: its record has the validation accuracy, and measured["validation_loss"], over the
    whole validation text.  predict(params, ids) -> logits (n, context, characters).
    Raises what `fit` raises.

    >>> import optax
    >>> from pathlib import Path
    >>> _ = Path("words.txt").write_text("the cat sat on the mat. " * 40)
    >>> text = nnjax.train.load_text("words.txt")
    >>> model = nnjax.char_rnn(len(text.vocabulary), 16)
    >>> done = nnjax.train.fit_text(
    ...     nnjax.value_and_grad(model, nnjax.softmax_cross_entropy()), model.init(jax.random.key(0)), text,
    ...     predict=model.apply, optimizer=optax.adam(0.01), steps=20, every=20, context=12, batch_size=8,
    ...     key=jax.random.key(1),
    ... )
    >>> int(done.state.step)
    20
    """
    if not isinstance(text, Text):
        raise TypeError(f"fit_text: text must be a train.Text, got {describe(text)}; make one with train.load_text(path).")
    expect_value_and_grad("fit_text", value_and_grad)
    expect_callable("fit_text", "predict", predict, "pass the model's apply, as in predict=model.apply")
    expect_optimizer("fit_text", optimizer)
    functions = {"on_epoch": on_epoch, "on_steps": on_steps, "measure": measure, "where": where, "evaluated": evaluated}
    expect_options("fit_text", functions, checkpoints, patience, skipping, placement)
    expect_arrays("fit_text", "params", params, "make them with model.init(key)")
    expect_key("fit_text", key)
    expect_positive("fit_text", steps=steps, context=context, batch_size=batch_size, every=every)
    placement.expect_batch("fit_text", batch_size)
    if steps % every:
        raise ValueError(f"fit_text: steps must be a multiple of every, got {steps} and {every}; change one of them.")
    expect_window(text, context)
    ids, validation = (placement.everywhere(part) for part in (text.train, text.validation))
    evaluate = make_evaluate(placement.predicting(predict), validation, context)

    def order(key, first):
        return jax.random.randint(epoch_key(key, first), (every, batch_size), 0, len(text.train) - context, jnp.int32)

    def score(state):
        loss, accuracy = evaluate(evaluated(state))
        measured = {name: float(v) for name, v in measure(state).items()} if measure else {}
        return accuracy, float("nan"), {"validation_loss": loss, **measured}

    return loop(
        make_step(value_and_grad, optimizer), placement.state(params, optimizer, key),
        Batches(ids, lambda ids, starts: windows(ids, starts, context), order, every, placement.feed),
        steps // every, score,
        checkpoints=checkpoints, on_epoch=on_epoch, on_steps=on_steps, patience=patience, where=where, skipping=skipping,
        placement=placement,
    )  # fmt: skip
