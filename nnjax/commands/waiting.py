"""What a command is doing, for as long as it takes, where somebody watches. Light: it is there before JAX's programs are."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def waiting(what: str, quiet: bool = False) -> Iterator[None]:
    """Show in the last line of a terminal that this is being done, and for how long; nothing stays of it. Elsewhere nothing."""
    if quiet or not sys.stdout.isatty():
        yield
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), transient=True) as shown:
        shown.add_task(what, total=None)
        yield
