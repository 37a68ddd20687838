"""Print one sentence where JAX would end a process inside C++, with a stack trace and without running any more Python.

Everything that this process writes to stderr goes through a second process, which passes it on line by line. If the lines
are those of such an end, it holds them back, and prints the matching one of its given sentences instead. jaxlib's client
takes a `missed_heartbeat_callback`, but `jax.distributed.initialize` of JAX 0.10 to 0.12 does not pass one on. This file
can go once it does, or once the end of another process is raised as an exception in Python.
Run as a program, this file is that second process. It imports only the standard library.
"""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence

Sentences = Sequence[tuple[str, str]]  # (pattern, sentence): the first one with a matching pattern is printed

FATAL = re.compile(r"F\d{4} .*client\.h.*Terminating process because the JAX distributed service")  # and all that follows
TROUBLE = re.compile(r"[EW]\d{4} .*(coordination_service|preemption_sync)|\[external/\S*gloo/\S*debug_logger")  # just before
MORE = re.compile(
    r"\s*$|Additional GRPC error|:UNKNOWN|RPC: |=== Source Location Trace|\S+\.cc:\d+$|\d+$|The tasks have crashed"
)  # lines that follow one of trouble
SPOKEN = "nnjax: error: "


def watch(sentences: Sentences) -> None:
    """From now on, print one of these sentences if JAX ends this process."""
    sys.stderr.flush()
    program = [sys.executable, "-I", "-S", __file__, json.dumps(list(sentences))]
    second = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=2, start_new_session=True)
    assert second.stdin is not None
    os.dup2(second.stdin.fileno(), 2)
    second.stdin.close()


def translated(lines: Iterable[str], sentences: Sentences) -> Iterator[str]:
    """The lines, with those of such an end replaced by a sentence, or by nothing if Python has already said why."""
    kept: list[str] = []
    spoken = fatal = trouble = False
    for line in lines:
        spoken = spoken or line.startswith(SPOKEN)
        fatal = fatal or bool(FATAL.match(line))
        trouble = bool(TROUBLE.match(line) or (trouble and MORE.match(line)))
        if (fatal or trouble) and not line.startswith(SPOKEN):
            kept.append(line)
        else:
            yield line
    if fatal and not spoken:
        words = "".join(kept)
        yield SPOKEN + next(sentence for pattern, sentence in sentences if re.search(pattern, words, re.DOTALL)) + "\n"
    elif not spoken:
        yield from kept


def main() -> None:
    """Pass stdin on to stdout until it ends, byte for byte."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    for line in translated(sys.stdin, json.loads(sys.argv[1])):
        sys.stdout.write(line)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
