"""Text, a character at a time: files, windows of it, and the run over random windows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..errors import describe, expect_arrays, expect_callable, expect_key, expect_positive, is_array
from ..files import expect_path
from ..grad import ValueAndGrad
from ..linear import wide
from .dataset import DataError
from .fit import expect_options
from .loop import Batches, loop
from .placement import Placement, everywhere, expect_batch, feeding, placed_state, predicting
from .run import Checkpoints, Fit, OnEpoch
from .step import TrainState, epoch_key, expect_optimizer, expect_value_and_grad, make_step

SHARE = 0.9  # of a text, its beginning, to train on; the rest validates
WINDOWS = 32  # whose predictions are computed at a time: of a small gpt 128 take 1.7 times as long, for fresh memory


class Text(NamedTuple):
    """train, validation: int32 ids of consecutive characters; vocabulary[id] is the character."""

    name: str
    train: np.ndarray
    validation: np.ndarray
    vocabulary: str

    def encode(self, text: str) -> np.ndarray:
        """The ids of these characters. Raises DataError for one that the vocabulary lacks."""
        if not isinstance(text, str):
            raise TypeError(f"encode: text must be a str, got {describe(text)}; pass its characters.")
        number = {c: i for i, c in enumerate(self.vocabulary)}
        strange = sorted(set(text) - set(number))
        if strange:
            raise DataError(f"text {self.name!r} has no character {strange[0]!r}; write with {self.vocabulary!r}.")
        return np.array([number[c] for c in text], np.int32)

    def decode(self, ids: Any) -> str:
        """The characters with these ids. Raises TypeError for what are no integers, DataError for ids that nobody has."""
        try:
            found = np.asarray(ids) if isinstance(ids, (list, tuple)) or is_array(ids) else None
        except (TypeError, ValueError):  # a key, or rows of many lengths
            found = None
        if found is None or (found.size and not np.issubdtype(found.dtype, np.integer)):
            raise TypeError(
                f"decode: ids must be integers, got {describe(ids if found is None else found)}; take logits.argmax(-1)."
            )
        if found.size and not 0 <= found.min() <= found.max() < len(self.vocabulary):
            raise DataError(f"text {self.name!r}: ids must lie in 0 ... {len(self.vocabulary) - 1}, got {found.min()} to "
                            f"{found.max()}; another text's ids?")  # fmt: skip
        return "".join(self.vocabulary[i] for i in found.ravel())


def make_text(name: str, text: str) -> Text:
    """A text in characters, its vocabulary in order. Raises DataError where there is too little to split."""
    if len(text) < 20:
        raise DataError(f"text {name!r}: expected at least 20 characters, got {len(text)}; give it more.")
    empty = Text(name, np.zeros(0, np.int32), np.zeros(0, np.int32), "".join(sorted(set(text))))
    ids, cut = empty.encode(text), int(SHARE * len(text))
    return empty._replace(train=ids[:cut], validation=ids[cut:])


def load_text(path: str | Path) -> Text:
    """The text in a UTF-8 file of your own: 90 % to train on, the last 10 % to validate. Raises DataError if it cannot be."""
    path = expect_path("load_text", path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a byte order mark: it is no character
    except FileNotFoundError:
        raise DataError(f"{path} is not there; check the path of the text file.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}; convert it.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}; check it.") from None
    if not text:
        raise DataError(f"{path} is empty; put at least 20 characters into it.")
    return make_text(path.name, text)


def windows(ids: jax.Array, starts: jax.Array, context: int) -> tuple[jax.Array, jax.Array]:
    """(x, labels), both (n, context): the characters from each start on, and the one that follows each."""
    at = starts[:, None] + jnp.arange(context, dtype=jnp.int32)[None]
    return ids[at], ids[at + 1]


def expect_window(text: Text, context: int) -> None:
    """Raise DataError for a text that is too short for one window."""
    if len(text.train) <= context:
        raise DataError(
            f"text {text.name!r}: a window needs {context + 1} characters, there are {len(text.train)} to train on; "
            "shorten the context."
        )


def make_evaluate(predict: Callable, ids: jax.Array, context: int) -> Callable[[Any], tuple[float, float]]:
    """evaluate(params) -> (mean cross-entropy, share of characters foretold rightly), over all whole windows side by side."""
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
        found = [sums(params, ids, starts[i : i + WINDOWS]) for i in range(0, count, WINDOWS)]
        n = count * context
        return (sum(float(a) for a, _ in found) / n, sum(int(b) for _, b in found) / n) if n else (float("nan"), float("nan"))

    return evaluate


def fit_text(
    value_and_grad: ValueAndGrad, params: Any, text: Text, *, predict: Callable[[Any, Any], Any],
    optimizer: optax.GradientTransformation, steps: int, context: int, batch_size: int, key: jax.Array, every: int = 250,
    on_epoch: OnEpoch | None = None, checkpoints: Checkpoints | None = None,
    evaluated: Callable[[TrainState], Any] = lambda state: state.params, patience: int | None = None,
    where: Callable[..., str] | None = None, skipping: bool = False, placement: Placement | None = None,
) -> Fit:  # fmt: skip
    """Train for `steps` steps on random windows of `context` characters, batch_size at a time; the rest as in `fit`.

    Each `every` steps count as an epoch: its record has the validation accuracy, and measured["validation_loss"], over the
    whole validation text.  predict(params, ids) -> logits (n, context, characters).
    Raises what `fit` raises.
    """
    if not isinstance(text, Text):
        raise TypeError(f"fit_text: text must be a train.Text, got {describe(text)}; make one with train.load_text(path).")
    expect_value_and_grad("fit_text", value_and_grad)
    expect_callable("fit_text", "predict", predict, "pass the model's apply, as in predict=model.apply")
    expect_optimizer("fit_text", optimizer)
    functions = {"on_epoch": on_epoch, "where": where, "evaluated": evaluated}
    expect_options("fit_text", functions, checkpoints, patience, skipping, placement)
    expect_arrays("fit_text", "params", params, "make them with model.init(key)")
    expect_key("fit_text", key)
    expect_positive("fit_text", steps=steps, context=context, batch_size=batch_size, every=every)
    expect_batch("fit_text", placement, batch_size)
    if steps % every:
        raise ValueError(f"fit_text: steps must be a multiple of every, got {steps} and {every}; change one of them.")
    expect_window(text, context)
    ids, validation = (everywhere(part, placement) for part in (text.train, text.validation))
    evaluate = make_evaluate(predicting(predict, placement), validation, context)

    def order(key, first):
        return jax.random.randint(epoch_key(key, first), (every, batch_size), 0, len(text.train) - context, jnp.int32)

    def score(state):
        loss, accuracy = evaluate(evaluated(state))
        return accuracy, float("nan"), {"validation_loss": loss}

    return loop(
        make_step(value_and_grad, optimizer), placed_state(params, optimizer, key, placement),
        Batches(ids, lambda ids, starts: windows(ids, starts, context), order, every, feeding(placement)),
        steps // every, score,
        checkpoints=checkpoints, on_epoch=on_epoch, patience=patience, where=where, skipping=skipping, placement=placement,
    )  # fmt: skip
