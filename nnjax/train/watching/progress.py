"""Progress of a run: a progress bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ..run import Epoch, OnEpoch, OnSteps
from .scores import R2


class Watched(NamedTuple):
    """What `fit` calls: `on_epoch` with each record, `on_steps` after each scan."""

    on_epoch: OnEpoch
    on_steps: OnSteps | None = None


def epoch_line(record: Epoch, epochs: int, examples: int = 0, width: int | None = None) -> str:
    """One line for one epoch; examples: how many it trained on, if known. The accuracy of an empty split is left out.

    width: of the terminal; if the line is longer, it loses words from its end.
    """
    words = [f"epoch {record.epoch:>{len(str(epochs))}}/{epochs}", f"loss {record.loss:.4f}"]
    if record.validation_accuracy == record.validation_accuracy:
        words.append(f"validation {record.validation_accuracy:.4f}")
    if record.test_accuracy == record.test_accuracy:
        words.append(f"test {record.test_accuracy:.4f}")
    for part, name in R2.items():
        if (r2 := record.measured.get(name, float("nan"))) == r2:
            words.append(f"{part} R² {r2:.4f}")
    if "validation_loss" in record.measured:
        words.append(f"validation loss {record.measured['validation_loss']:.4f}")
    words.append(f"{record.seconds:.3f} s")
    if examples and record.seconds > 0:
        words.append(f"{examples / record.seconds:,.0f} examples/s")
    while width is not None and len(words) > 1 and len("  ".join(words)) > width:
        words.pop()
    return "  ".join(words)


@contextmanager
def progress(epochs: int, examples: int = 0, steps: int = 1, quiet: bool = False) -> Iterator[Watched]:
    """Functions to call with each Epoch, and after each scan of its `steps`. On a terminal they show a bar, and above it a line
    for each epoch, both within its width. quiet: show nothing."""
    if quiet:
        yield Watched(lambda record: None)
        return
    if not sys.stdout.isatty():
        yield Watched(lambda record: print(epoch_line(record, epochs, examples), flush=True))
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    words = TextColumn("{task.description}", table_column=Column(no_wrap=True))
    left = TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True))
    bar = Progress(words, left, BarColumn(None, table_column=Column(ratio=1)), console=Console(), expand=True)
    score = ""

    def described(epoch: int, loss: float) -> str:
        return f"epoch {epoch}/{epochs}" + (f"  loss {loss:.4f}" if loss == loss else "") + score

    with bar:
        task = bar.add_task("compiling", total=None)

        def on_steps(step: int, loss: float) -> None:
            nonlocal task
            if bar.tasks[0].total is None:  # all is compiled: the bar shows the time left from here on
                bar.remove_task(task)
                task = bar.add_task(described(min(step // steps + 1, epochs), loss), total=epochs * steps, completed=step)
            else:
                bar.update(task, completed=step, description=described((step - 1) // steps + 1, loss))

        def on_epoch(record: Epoch) -> None:
            nonlocal score
            what = "R²" if any(name in record.measured for name in R2.values()) else "accuracy"
            score = f"  {what} {record.score:.4f}"
            bar.console.print(epoch_line(record, epochs, examples, bar.console.width), markup=False, highlight=False)
            bar.update(task, description=described(record.epoch, record.loss))

        yield Watched(on_epoch, on_steps)
