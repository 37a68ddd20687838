"""The record of a run, a line of JSON for each epoch, in `metrics.jsonl`; and the same for other tools."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...data.files import writing
from ..run import Checkpoints, Epoch
from .plain import plain

FILE = "metrics.jsonl"
RECORD = ("epoch", "loss", "validation_accuracy", "test_accuracy")  # fields of every line, first the number of the epoch


def values(record: Epoch, examples: int) -> dict[str, Any]:
    """Everything about an epoch by name, as JSON carries it, None for what is missing. Seconds are those of the steps.

    Raises TypeError, which names the entry, for what JSON cannot carry.
    """
    speed = examples / record.seconds if record.seconds > 0 else float("nan")
    fields = {**record._asdict(), "examples_per_second": speed}
    fields |= fields.pop("measured")
    found = {name: plain(f"metrics: {name}", value) for name, value in fields.items()}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in found.items()}


def read_lines(path: Path, fields: tuple[str, ...] = RECORD) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, each with these fields. Raises ValueError, which names it, for any other line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}; remove it, or choose another folder.") from None
    return [_record(f"{path}, line {number}", line, fields) for number, line in enumerate(lines, 1)]


def _record(who: str, line: str, fields: tuple[str, ...]) -> dict[str, Any]:
    remedy = "delete the line: a resumed run writes missing lines again"
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{who}, is not a JSON object: {error}; {remedy}.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{who}, is not a JSON object, but {line[:40]!r}; {remedy}.")
    for name in fields:
        value = found.get(name, "")
        right = (int,) if name == fields[0] else (int, float, type(None))
        if isinstance(value, bool) or not isinstance(value, right):
            came = f"got {value!r}" if name in found else "which is missing"
            raise ValueError(
                f"{who}, is not a record: {name} must be a{' whole' * (name == fields[0])} number, {came}; {remedy}."
            )
    return found


def expect_records(folder: Path | None) -> None:
    """Raise ValueError, before any work is done, if the metrics in this folder cannot be extended."""
    if folder is not None and (folder / FILE).exists():
        read_lines(folder / FILE)


def log(path: Path, record: Epoch, examples: int) -> None:
    """Add this epoch to the file, by renaming a draft; later epochs, from before a resume, are dropped."""
    new = values(record, examples)
    before = read_lines(path) if path.exists() else []
    _write(path, [*(line for line in before if line["epoch"] < new["epoch"]), new])


def relog(path: Path, history: Sequence[Epoch], examples: int) -> None:
    """Make the file hold these epochs: lines that are there stay, missing ones are written again."""
    before = read_lines(path) if path.exists() else []
    there = {line["epoch"]: line for line in before}
    lines = [there.get(record.epoch) or values(record, examples) for record in history]
    if lines != before:
        _write(path, lines)


def _write(path: Path, lines: list[dict[str, Any]]) -> None:
    with writing(path) as draft:
        draft.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


class Writers:
    """write(record) writes an epoch to every output; write.restore(history) adds the missing epochs of a resumed run to
    metrics.jsonl. It is a context manager, and flushes everything at its end.

    folder: of metrics.jsonl, and of TensorBoard's files; wandb: a project of Weights & Biases.
    Raises ValueError if a library that is needed is not installed.
    """

    def __init__(
        self, folder: Path | None, examples: int, tensorboard: bool = False, wandb: str | None = None,
        configuration: Mapping[str, Any] = {},
    ):  # fmt: skip
        self.folder: Path | None = folder
        self.examples: int = examples
        self.board: Any = _tensorboard(folder / "tensorboard") if tensorboard and folder else None
        self.run: Any = _wandb(wandb, configuration) if wandb else None

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.board is not None:
            self.board.close()
        if self.run is not None:
            self.run.finish()

    def restore(self, history: Sequence[Epoch]) -> None:
        """Make metrics.jsonl hold these epochs and no later one."""
        if self.folder is not None and history:
            relog(self.folder / FILE, history, self.examples)

    def __call__(self, record: Epoch) -> None:
        """Write this epoch to every output."""
        if self.folder is not None:
            log(self.folder / FILE, record, self.examples)
        known = {k: v for k, v in values(record, self.examples).items() if v is not None and k != "epoch"}
        if self.board is not None:
            for name, value in known.items():
                if isinstance(value, (int, float)):
                    self.board.add_scalar(name, value, record.epoch)
        if self.run is not None:
            self.run.log(known, step=record.epoch)


def told_before(checkpoints: Checkpoints | None, write: Writers) -> Checkpoints | None:
    """The same checkpoints, which pass the history of a resumed run to `write`."""
    return None if checkpoints is None else checkpoints._replace(on_history=write.restore)


def _tensorboard(folder: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ValueError("train: --tensorboard needs tensorboardX: python -m pip install 'nnjax[tensorboard]'.") from None
    return SummaryWriter(str(folder))


def _wandb(project: str, configuration: Mapping[str, Any]) -> Any:
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError("train: --wandb needs wandb: python -m pip install 'nnjax[wandb]'.") from None
    return wandb.init(project=project, config=dict(configuration))
