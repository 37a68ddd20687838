"""The command line. Each command is a dataclass of its options with a method `run() -> exit code`."""

import importlib
import io
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from .commands.waiting import waiting, wrapped

FULL = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory")  # in JAX's error where memory runs out

COMMANDS = (
    "train",
    "predict",
    "sample",
    "check",
    "audit",
    "bench",
    "reproduce",
    "plot",
    "explain",
)  # command: its module in `commands`, and the class in it


def _loaded(name: str) -> Any:
    return getattr(importlib.import_module(f".commands.{name}", __package__), name.title())


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command `nnjax`: exit code 0, 1 for a check that failed, 2 for bad input (one sentence)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that the terminal cannot show must not end a run
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        sys.exit(_run(argv))
    except BrokenPipeError:  # as after `nnjax bench --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python fails again when it exits
        sys.exit(1)


def _run(argv: list[str]) -> Any:
    try:
        import tyro
    except ImportError:
        return "nnjax: the command line needs the train extra: python -m pip install 'nnjax[train]'"
    if argv == ["--version"]:
        return print(f"nnjax {metadata.version('nnjax')}, JAX {metadata.version('jax')}")
    try:
        if argv and argv[0] in COMMANDS:  # the other commands need not be imported
            with waiting("starting", quiet=argv[0] != "train" or "--quiet" in argv):
                loaded = _loaded(argv[0])
            own = getattr(loaded, "parse", None)
            command = own(argv[1:]) if own else tyro.cli(loaded, prog=f"nnjax {argv[0]}", args=argv[1:])
        else:
            command = tyro.extras.subcommand_cli_from_dict(
                {name: _loaded(name) for name in COMMANDS},
                prog="nnjax",
                description="Backpropagation written out by hand in JAX, every gradient checked against jax.grad.",
                args=argv,
            )
        code = command.run()
    except BrokenPipeError:
        raise
    except (ValueError, OSError, FloatingPointError) as error:
        print(wrapped(f"nnjax: error: {error}", sys.stderr), file=sys.stderr)
        code = 2
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(word in str(error) for word in FULL):
            raise
        reason = (str(error).splitlines() or ["the machine has no more of it"])[0]
        print(f"nnjax: error: out of memory: {reason}; make the model or the batch smaller.", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("nnjax: interrupted", file=sys.stderr)
        code = 130
    return code
