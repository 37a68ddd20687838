"""What a person watches: a progress bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..run import Epoch
from .scores import R2


def epoch_line(record: Epoch, epochs: int, examples: int = 0) -> str:
    """One line for one epoch, of so many examples if that is known; an accuracy of an empty split is left out."""
    line = f"epoch {record.epoch:>{len(str(epochs))}}/{epochs}  loss {record.loss:.4f}"
    if record.validation_accuracy == record.validation_accuracy:
        line += f"  validation {record.validation_accuracy:.4f}"
    if record.test_accuracy == record.test_accuracy:
        line += f"  test {record.test_accuracy:.4f}"
    for part, name in R2.items():
        if (r2 := record.measured.get(name, float("nan"))) == r2:
            line += f"  {part} R² {r2:.4f}"
    if "validation_loss" in record.measured:
        line += f"  validation loss {record.measured['validation_loss']:.4f}"
    speed = f"  {examples / record.seconds:,.0f} examples/s" if examples and record.seconds > 0 else ""
    return f"{line}  {record.seconds:.3f} s{speed}"


@contextmanager
def progress(epochs: int, examples: int = 0) -> Iterator[Any]:
    """A function to call with each Epoch."""
    if not sys.stdout.isatty():
        yield lambda record: print(epoch_line(record, epochs, examples), flush=True)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("compiling", total=epochs)

        def on_epoch(record: Epoch) -> None:
            line = epoch_line(record, epochs, examples)
            bar.update(task, completed=record.epoch, description=line.split("  ", 1)[1])

        yield on_epoch
