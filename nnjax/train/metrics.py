"""What a run came to, an epoch a line, as JSON: `metrics.jsonl`; and the same for other tools."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .run import Epoch


def values(record: Epoch, examples: int) -> dict[str, float | None]:
    """Every number of an epoch by name, None for what there is not. Seconds are those of the steps."""
    speed = examples / record.seconds if record.seconds > 0 else float("nan")
    fields = {**record._asdict(), "examples_per_second": speed}
    fields |= fields.pop("measured")
    return {name: value if value == value else None for name, value in fields.items()}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines. Raises ValueError where one cannot be read: it says which."""
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            found.append(dict(json.loads(line)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}, is no JSON object: {error}; delete the line, or train anew.") from None
    return found


def log(path: Path, record: Epoch, examples: int) -> None:
    """Put this epoch into the file, in one rename; later epochs, of a run that has gone back to a checkpoint, are dropped."""
    before = read_lines(path) if path.exists() else []
    kept = [line for line in before if line["epoch"] < record.epoch]
    lines = [json.dumps(line) for line in [*kept, values(record, examples)]]
    draft = path.with_name(f".{path.name}")
    draft.write_text("\n".join(lines) + "\n")
    os.replace(draft, path)


class Writers:
    """write(record) puts an epoch wherever it was asked for; a context, at whose end everything is flushed.

    folder: of metrics.jsonl, and of TensorBoard's files; wandb: a project of Weights & Biases.
    Raises ValueError where a library that was asked for is not installed.
    """

    def __init__(
        self, folder: Path | None, examples: int, tensorboard: bool = False, wandb: str | None = None,
        configuration: Mapping[str, Any] = {},
    ):  # fmt: skip
        self.folder, self.examples = folder, examples
        self.board = _tensorboard(folder / "tensorboard") if tensorboard and folder else None
        self.run = _wandb(wandb, configuration) if wandb else None

    def __enter__(self):
        return self.write

    def __exit__(self, *_):
        if self.board is not None:
            self.board.close()
        if self.run is not None:
            self.run.finish()

    def write(self, record: Epoch) -> None:
        """This epoch, to each."""
        if self.folder is not None:
            log(self.folder / "metrics.jsonl", record, self.examples)
        known = {k: v for k, v in values(record, self.examples).items() if v is not None and k != "epoch"}
        if self.board is not None:
            for name, value in known.items():
                self.board.add_scalar(name, value, record.epoch)
        if self.run is not None:
            self.run.log(known, step=record.epoch)


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
