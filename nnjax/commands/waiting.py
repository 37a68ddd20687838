"""Show on a terminal what a command is doing meanwhile. This module is light, so that it can show before JAX is imported."""

import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def waiting(what: str, quiet: bool = False) -> Iterator[None]:
    """Show in the last line of a terminal what is being done, and for how long, then clear it. Elsewhere do nothing."""
    if quiet or not sys.stdout.isatty():
        yield
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), transient=True) as shown:
        shown.add_task(what, total=None)
        yield


def wrapped(words: str, where: TextIO) -> str:
    """The words, wrapped to the terminal's width; unchanged where the output is not a terminal."""
    if not where.isatty():
        return words
    try:
        width = os.get_terminal_size(where.fileno()).columns
    except (OSError, ValueError):
        return words
    return "\n".join(
        "\n".join(textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)) or line
        for line in words.split("\n")
    )
