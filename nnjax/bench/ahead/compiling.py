"""Compile many programs for several targets in several processes, with a time limit for each program."""

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .figures import Figures

LIMIT = 150.0  # seconds for one program: TPU compilers search for minutes if a convolution's kernel is large

COMMAND = (sys.executable, "-m", f"{__package__}.worker")

Found = dict[str, Figures | str]  # {label: figures, or the reason why there are none}
Unit = tuple[str, tuple[str, ...]]  # (a kind of `programs.KINDS`, its arguments)


class Worker:
    """A process of `worker`, started on first use and again after it is lost."""

    def __init__(self, target: str, limit: float):
        self.target, self.limit = target, limit
        self.process: subprocess.Popen[str] | None = None
        self.lines: queue.Queue[str] = queue.Queue()

    def ask(self, unit: Unit) -> Found:
        """The figures of every program of a unit. Raises ValueError if the unit itself cannot be made."""
        kind, arguments = unit
        found: Found = {}
        while True:
            self._send([kind, arguments, list(found)])
            answer = self._next()
            if "error" in answer:
                raise ValueError(f"bench: {' '.join(arguments)}: {answer['error'].removeprefix('bench: ')}")
            waiting = [label for label in answer.get("labels", ()) if label not in found]
            if "lost" in answer:
                return found or {"": answer["lost"]}
            for label in waiting:
                answer = self._next()
                if "lost" in answer:
                    found[label] = answer["lost"]
                    break
                found[label] = Figures(**answer["figures"]) if "figures" in answer else answer["error"]
            else:
                self._next()  # the answer that it is done
                return found

    def _send(self, request: Any) -> None:
        if self.process is None:
            self.process = subprocess.Popen(
                [*COMMAND, self.target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            self.lines = queue.Queue()
            threading.Thread(target=_read, args=(self.process, self.lines), daemon=True).start()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `_next` reports how it ended
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()

    def _next(self) -> dict[str, Any]:
        """The next answer, or {"lost": why}."""
        try:
            line = self.lines.get(timeout=self.limit)
        except queue.Empty:
            self.stop()
            return {"lost": f"not compiled in {self.limit:g} s"}
        if not line:
            assert self.process is not None
            code = self.process.wait()
            self.stop()
            return {"lost": f"the compiler's process ended with exit code {code}"}
        return json.loads(line)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        self.process = None


def _read(process: subprocess.Popen[str], lines: "queue.Queue[str]") -> None:
    assert process.stdout is not None
    try:
        for line in process.stdout:
            lines.put(line)
    except ValueError:  # closed by `stop`
        pass
    lines.put("")


def compile_all(
    targets: Sequence[str], units: Sequence[Unit], said: Callable[[str, Unit, Found], None], limit: float = LIMIT
) -> dict[str, list[Found]]:
    """{target: the figures of each unit}; said(target, unit, found) as they arrive. A program that takes longer than `limit`
    seconds, or crashes its compiler, has a sentence instead of figures.

    As many processes as targets run in parallel, each on its own target first, then on what is left of the others.
    Raises ValueError if a unit cannot be made.
    """
    left = {name: list(range(len(units)))[::-1] for name in targets}
    every: dict[str, dict[int, Found]] = {name: {} for name in targets}
    turn = threading.Lock()

    def next_for(own: str) -> tuple[str, int] | None:
        with turn:
            name = own if left[own] else max(left, key=lambda name: len(left[name]))
            return (name, left[name].pop()) if left[name] else None

    def work(own: str) -> None:
        worker = Worker(own, limit)
        try:
            while (job := next_for(own)) is not None:
                name, at = job
                if name != worker.target:
                    worker.stop()
                    worker = Worker(name, limit)
                every[name][at] = worker.ask(units[at])
                said(name, units[at], every[name][at])
        except BaseException:
            with turn:
                for waiting in left.values():
                    waiting.clear()
            raise
        finally:
            worker.stop()

    with ThreadPoolExecutor(len(targets)) as pool:
        list(pool.map(work, targets))
    return {name: [found[at] for at in range(len(units))] for name, found in every.items()}
