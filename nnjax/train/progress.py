"""What a person watches: a progress bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .run import Epoch


def epoch_line(record: Epoch, epochs: int) -> str:
    """One line for one epoch; an accuracy of an empty split is left out."""
    line = f"epoch {record.epoch:>{len(str(epochs))}}/{epochs}  loss {record.loss:.4f}"
    if record.validation_accuracy == record.validation_accuracy:
        line += f"  validation {record.validation_accuracy:.4f}"
    if record.test_accuracy == record.test_accuracy:
        line += f"  test {record.test_accuracy:.4f}"
    if "validation_loss" in record.measured:
        line += f"  validation loss {record.measured['validation_loss']:.4f}"
    return f"{line}  {record.seconds:.3f} s"


@contextmanager
def progress(epochs: int) -> Iterator:
    """A function to call with each Epoch."""
    if not sys.stdout.isatty():
        yield lambda record: print(epoch_line(record, epochs), flush=True)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("compiling", total=epochs)
        yield lambda record: bar.update(task, completed=record.epoch, description=epoch_line(record, epochs).split("  ", 1)[1])
