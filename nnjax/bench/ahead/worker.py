"""A process that compiles for one target on request: `python -m nnjax.bench.ahead.worker TARGET`.

A compiler that hangs or crashes ends this process, not the one that asked. Each line of standard
input is a JSON list [kind, [arguments], [labels to leave out]] (`programs.KINDS`); the answers are lines of standard output:
{"labels": [...]}, then {"label": ..., "figures": {...}} or {"label": ..., "error": "..."} for each, and {"done": true}.
"""

import json
import os
import sys
from collections.abc import Iterable
from typing import TextIO

from .figures import figures
from .programs import KINDS
from .targets import Target, target


def answer(at: Target, requests: Iterable[str], answers: TextIO) -> None:
    """Answer each request in turn."""

    def say(**what):
        print(json.dumps(what), file=answers, flush=True)

    for line in requests:
        kind, arguments, without = json.loads(line)
        try:
            programs = KINDS[kind](at.platform, *arguments)
        except Exception as error:
            say(error=_first_line(error))
            continue
        say(labels=list(programs))
        for label, (f, args) in programs.items():
            if label not in without:
                try:
                    say(label=label, figures=figures(at, f, args)._asdict())
                except Exception as error:
                    say(label=label, error=_first_line(error))
        say(done=True)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


if __name__ == "__main__":
    apart = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of a compiler or of a user's function is not an answer
    answer(target(sys.argv[1]), sys.stdin, apart)
