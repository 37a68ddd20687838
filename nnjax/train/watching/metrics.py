"""What a run came to, an epoch a line, as JSON: `metrics.jsonl`; and the same for other tools."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...data.files import writing
from ..run import Checkpoints, Epoch
from .plain import plain

FILE = "metrics.jsonl"
RECORD = ("epoch", "loss", "validation_accuracy", "test_accuracy")  # what every line has, the whole number that counts it first


def values(record: Epoch, examples: int) -> dict[str, Any]:
    """Everything of an epoch by name, as JSON carries it, None for what there is not. Seconds are those of the steps.

    Raises TypeError for what JSON cannot carry: it names the entry.
    """
    speed = examples / record.seconds if record.seconds > 0 else float("nan")
    fields = {**record._asdict(), "examples_per_second": speed}
    fields |= fields.pop("measured")
    found = {name: plain(f"metrics: {name}", value) for name, value in fields.items()}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in found.items()}


def read_lines(path: Path, fields: tuple[str, ...] = RECORD) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, each with these fields. Raises ValueError where one is no record: it says which."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}; remove it, or choose another folder.") from None
    return [_record(f"{path}, line {number}", line, fields) for number, line in enumerate(lines, 1)]


def _record(who: str, line: str, fields: tuple[str, ...]) -> dict[str, Any]:
    remedy = "delete the line: a run that is resumed writes again what is missing"
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{who}, is no JSON object: {error}; {remedy}.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{who}, is no JSON object, but {line[:40]!r}; {remedy}.")
    for name in fields:
        value = found.get(name, "")
        right = (int,) if name == fields[0] else (int, float, type(None))
        if isinstance(value, bool) or not isinstance(value, right):
            came = f"got {value!r}" if name in found else "which is missing"
            raise ValueError(f"{who}, is no record: {name} must be a{' whole' * (name == fields[0])} number, {came}; {remedy}.")
    return found


def expect_records(folder: Path | None) -> None:
    """Raise ValueError, before any work is done, where the metrics in this folder cannot be added to."""
    if folder is not None and (folder / FILE).exists():
        read_lines(folder / FILE)


def log(path: Path, record: Epoch, examples: int) -> None:
    """Put this epoch into the file, in one rename; later epochs, of a run that has gone back to a checkpoint, are dropped."""
    new = values(record, examples)
    before = read_lines(path) if path.exists() else []
    _write(path, [*(line for line in before if line["epoch"] < new["epoch"]), new])


def relog(path: Path, history: Sequence[Epoch], examples: int) -> None:
    """Have the file hold these epochs, whatever became of it: lines that are there stay, others are written again."""
    before = read_lines(path) if path.exists() else []
    there = {line["epoch"]: line for line in before}
    lines = [there.get(record.epoch) or values(record, examples) for record in history]
    if lines != before:
        _write(path, lines)


def _write(path: Path, lines: list[dict[str, Any]]) -> None:
    with writing(path) as draft:
        draft.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


class Writers:
    """write(record) puts an epoch wherever it was asked for, write.restore(history) those of a run that is gone on with into
    metrics.jsonl, where they are missing; a context, at whose end everything is flushed.

    folder: of metrics.jsonl, and of TensorBoard's files; wandb: a project of Weights & Biases.
    Raises ValueError where a library that was asked for is not installed.
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
        """Have metrics.jsonl hold these epochs and no later one."""
        if self.folder is not None and history:
            relog(self.folder / FILE, history, self.examples)

    def __call__(self, record: Epoch) -> None:
        """This epoch, to each."""
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
    """The same checkpoints, whose history `write` is told where the run goes on."""
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
