"""The command line. Each command is a dataclass of its options with a method `run() -> exit code`."""

import importlib
import io
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

FULL = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory")  # in what JAX raises where memory does not suffice

COMMANDS = (
    "train",
    "check",
    "audit",
    "bench",
    "reproduce",
    "plot",
    "explain",
)  # each a module of `commands`, and a class in it


def _loaded(name: str) -> Any:
    return getattr(importlib.import_module(f".commands.{name}", __package__), name.title())


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command `nnjax`: exit code 0, 1 for a check that failed, 2 for bad input (one sentence)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows another, and no run ends by it
    try:
        import tyro
    except ImportError:
        sys.exit("nnjax: the command line needs the train extra: python -m pip install 'nnjax[train]'")
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv == ["--version"]:
        sys.exit(print(f"nnjax {metadata.version('nnjax')}, JAX {metadata.version('jax')}"))
    if argv and argv[0] in COMMANDS:  # the others need not be imported
        command = tyro.cli(_loaded(argv[0]), prog=f"nnjax {argv[0]}", args=argv[1:])
    else:
        command = tyro.extras.subcommand_cli_from_dict(
            {name: _loaded(name) for name in COMMANDS},
            prog="nnjax",
            description="Backpropagation written out by hand in JAX, every gradient checked against jax.grad.",
            args=argv,
        )
    try:
        code = command.run()
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"nnjax: error: {error}", file=sys.stderr)
        code = 2
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(word in str(error) for word in FULL):
            raise
        reason = (str(error).splitlines() or ["the machine has no more"])[0]
        print(f"nnjax: error: memory does not suffice: {reason}; make the model or the batch smaller.", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("nnjax: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
