"""Load and use a run that `nnjax train --folder` saved."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from ...errors import describe, expect_flag, expect_key, whole_number
from ...layer import Layer
from ..run import Epoch
from .parameters import read_parameters
from .place import SAVED, found_place
from .prediction import Numbers, Prediction, predictor
from .record import CLASSES, NUMBERS, TEXT, Record, model_of, read_record
from .writing import Writer, characters, writer

USE = {CLASSES: "predict", NUMBERS: "predict", TEXT: "sample"}


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network: `predict` if it is for rows or images, `sample` and `stream` if it is for text.

    model: the Layer; a lenet or resnet takes images (n, height, width, channels), others take rows, prepared as in training.
    params: those that the run was scored with, its moving average if it kept one, with running statistics if it has batch
    norms. step: of the checkpoint; history: the epochs up to it; skipped: a sentence for each newer checkpoint that is
    damaged. record: everything else that is known about the run.
    See `load_run`.
    """

    folder: Path
    step: int
    model: Layer = field(repr=False)
    params: Any = field(repr=False)
    history: tuple[Epoch, ...] = field(repr=False)
    skipped: tuple[str, ...]
    record: Record = field(repr=False)

    @cached_property
    def _predict(self) -> Any:
        return predictor(self.model, self.record)

    @cached_property
    def _writer(self) -> Writer:
        return writer(self.model, self.record.network, self.record.vocabulary, self.record.data)

    def predict(self, x: Any) -> Prediction | Numbers:
        """Classes and probabilities, or numbers, for raw examples: (n, ...) for any n from 0, or a single one.

        x: numbers of any dtype, neither scaled nor standardised: that is done here, as in training. For images this means
        pixels as in the data files if they are whole numbers, and as `load` returns them if they are floating point.
        Raises DataError for examples of another shape, or with numbers that are not finite.
        """
        self.expect(CLASSES, NUMBERS)
        return self._predict(self.params, x)

    def stream(
        self, prompt: str | None = None, n: int | None = None, *, temperature: float = 0.8, top_k: int | None = None,
        key: Any = None, seed: int | None = None,
    ) -> Iterator[str]:  # fmt: skip
        """Yield the characters after the prompt, one by one: n of them, or without end. See `sample`."""
        self.expect(TEXT)
        return characters(self._writer, self.params, prompt, n, temperature, top_k, _key(key, seed))

    def sample(
        self, prompt: str | None = None, n: int = 200, *, temperature: float = 0.8, top_k: int | None = None, key: Any = None,
        seed: int | None = None,
    ) -> str:  # fmt: skip
        """n characters after the prompt, without it; by default as at the start of a line.

        Each is drawn from softmax(logits / temperature), among the top_k most probable ones if given; temperature 0 takes the
        most probable. A gpt or llama sees the last `context` characters. The same seed (0 by default) or key gives the same
        text; a larger n only continues it.
        Raises DataError for characters that do not occur in the text of the run.
        """
        return "".join(self.stream(prompt, n, temperature=temperature, top_k=top_k, key=key, seed=seed))

    def expect(self, *tasks: str) -> None:
        """Raise ValueError unless the network was trained for one of these tasks."""
        if self.record.task not in tasks:
            what, use = f"{self.record.network.kind} on {self.record.data}", USE[self.record.task]
            raise ValueError(f"{USE[tasks[0]]}: {self.folder} holds a network of another kind, {what}; use {use}.")


def _key(key: Any, seed: int | None) -> jax.Array:
    if key is not None and seed is not None:
        raise ValueError("sample: pass a key or a seed, not both.")
    if key is not None:
        expect_key("sample", key)
        return key
    number = whole_number(0 if seed is None else seed)
    if number is None or not 0 <= number < 1 << 32:
        came = repr(seed) if isinstance(seed, (int, float, str)) else describe(seed)
        raise ValueError(f"sample: seed must be a whole number from 0 to {(1 << 32) - 1}, got {came}; pass e.g. 1.")
    return jax.random.key(number)


def load_run(folder: str | Path, *, best: bool = False) -> Trained:
    """The network that `nnjax train --folder` saved there, on one device.

    folder: of the run; or one inside it, such as that of a checkpoint, which is then used; or one that holds a single run.
    By default the newest valid checkpoint; best: the one with the best validation (or test) accuracy.
    Raises CheckpointError if there is no run, or no valid checkpoint in it.

    >>> nnjax.train.load_run("a folder that is not there")
    Traceback (most recent call last):
    nnjax.train.checkpoint_folder.CheckpointError: ...
    """
    expect_flag("load_run", best=best)
    run, step = found_place("load_run", folder)
    record = read_record(run)
    model = model_of(record)
    found = read_parameters(run / SAVED, model, record.parameters, statistics=record.statistics, best=bool(best), step=step)
    return Trained(run, found.step, model, found.params, found.history, found.skipped, record)
