"""Runs that end in time: which case is begun, which was not reached and why, and a file that is whole whenever the run ends."""

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..data.files import writing

LAST = 5  # cases, the middle one of which tells how long the next may take: one that is far longer than all says little
RESERVE, MOST_RESERVE = 0.2, 5.0  # the share of the seconds, and at most so many, for Python to start and the last words


def expect_budget(who: str, seconds: float | None) -> None:
    """Raise ValueError unless seconds is None or a positive, finite number."""
    if seconds is not None and not 0 < seconds < math.inf:
        raise ValueError(f"{who}: budget must be a positive number of seconds, got {seconds}; pass such as 240.")


def refuse_beside_budget(who: str, why: str, **given: Any) -> None:
    """Raise ValueError for the first option that was given and does not fit a budget."""
    for name in (name if name == "module:function" else f"--{name}" for name, value in given.items() if value):
        raise ValueError(f"{who}: --budget {why}, which {name} does not fit; leave either out.")


def by_importance(names: Sequence[str], first: Sequence[str]) -> list[str]:
    """All names: for each entry of `first` the first that begins with it and is not yet in the list, then the rest in order."""
    found: list[str] = []
    for start in first:
        found += [name for name in names if name.startswith(start) and name not in found][:1]
    return found + [name for name in names if name not in found]


class Budget:
    """Cases, begun while there is time for them: as much as the middle one of the last five took. Counted from when it is made.

    seconds None: no end, every case is begun. Cases may run in several threads.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.perf_counter):
        self.seconds, self.clock = seconds, clock
        self.start = clock()
        self.end = math.inf if seconds is None else self.start + seconds - min(RESERVE * seconds, MOST_RESERVE)
        self.not_reached: dict[str, str] = {}  # and why not
        self.took: list[float] = []
        self._begun: dict[str, float] = {}
        self._lock = threading.RLock()

    def expects(self, names: Sequence[str]) -> None:
        """These are asked for, in this order: until one has ended it counts as not reached."""
        self.not_reached = dict.fromkeys(names, "not begun when this was written")

    def left(self) -> float:
        """Seconds until the last case has to have ended."""
        return self.end - self.clock()

    def expected(self) -> float:
        """Seconds that the next case may take: the median of the last few, of two the longer."""
        last = sorted(self.took[-LAST:])
        return last[len(last) // 2] if last else 0.0

    def begin(self, name: str) -> bool:
        """Whether there is time for this case; then it has begun."""
        with self._lock:
            left, expected = self.left(), self.expected()
            if left <= 0 or expected > left:
                self.not_reached[name] = f"may take {expected:.1f} s, as cases before it, and {max(left, 0.0):.1f} s were left"
                return False
            self.not_reached[name] = "begun, and not ended when this was written"
            self._begun[name] = self.clock()
            return True

    def ended(self, name: str) -> None:
        """The case has come to its end, right or wrong."""
        with self._lock:
            self.took.append(self.clock() - self._begun.pop(name))
            del self.not_reached[name]

    def each(self, most: float) -> float:
        """Seconds to measure the next case: half of its share of what is left, `most` at most. The rest goes into compiling."""
        waiting = max(len(self.not_reached), 1)
        return most if self.seconds is None else min(most, max(0.05, self.left() / waiting / 2))

    @contextmanager
    def watched(self, finish: Callable[[], int]) -> Iterator[None]:
        """Inside, when the time is over and a case still runs, finish() is called and the process ends with the code of it."""
        if self.seconds is None:
            yield
            return

        def over() -> None:
            code = finish()
            running = ", ".join(self._begun) or "nothing"
            print(f"the time is over while this runs, and ends with it: {running}")
            print(self.summary(), flush=True)
            leave(code)

        timer = threading.Timer(max(self.left(), 0.0), over)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def summary(self) -> str:
        """What was not reached, in words."""
        used = f"{self.clock() - self.start:.0f} of {self.seconds:.0f} s used" if self.seconds is not None else ""
        if not self.not_reached:
            return f"every case was reached; {used}"
        return f"not reached, {len(self.not_reached)}: {'; '.join(self.not_reached)}. {used}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the budget, and each case that was not reached with the reason. Nothing where there is no budget."""
        if self.seconds is None:
            return {}
        return {"budget_seconds": self.seconds, "used_seconds": round(self.clock() - self.start, 2),
                "complete": not self.not_reached, "not_reached": dict(self.not_reached)}  # fmt: skip


def leave(code: int) -> None:
    """End the process, whatever its threads do: one that compiles cannot be interrupted."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def write_json(file: Path | None, found: dict[str, Any]) -> None:
    """The whole file or none of it: it is written beside its place and renamed. No file, nothing to do."""
    if file is not None:
        with writing(file) as draft:
            draft.write_text(json.dumps(found, indent=1) + "\n")
