"""Runs that end in time: which case may start, which was not reached and why, and a file that is complete at any time."""

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

LAST = 5  # cases, whose median predicts the time of the next: a single long one changes it little
RESERVE, MOST_RESERVE = 0.2, 5.0  # share of the seconds, and at most this many, kept for Python's start and the summary


def expect_budget(who: str, seconds: float | None) -> None:
    """Raise ValueError unless seconds is None or a positive, finite number."""
    if seconds is not None and not 0 < seconds < math.inf:
        raise ValueError(f"{who}: budget must be a positive number of seconds, got {seconds}; pass e.g. 240.")


def refuse_beside_budget(who: str, why: str, **given: Any) -> None:
    """Raise ValueError for the first option that was given and does not fit a budget."""
    for name in (name if name == "module:function" else f"--{name}" for name, value in given.items() if value):
        raise ValueError(f"{who}: --budget {why}, so it does not go with {name}; leave one of them out.")


def by_importance(names: Sequence[str], first: Sequence[str]) -> list[str]:
    """All names, sorted: for each entry of `first`, the first name that starts with it and is not yet listed; then the rest."""
    found: list[str] = []
    for start in first:
        found += [name for name in names if name.startswith(start) and name not in found][:1]
    return found + [name for name in names if name not in found]


class Budget:
    """Starts cases while there is time for one more: the median of the last five. The clock starts when the Budget is made.

    seconds=None means no limit: every case starts. Cases may run in several threads.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.perf_counter):
        self.seconds, self.clock = seconds, clock
        self.start = clock()
        self.end = math.inf if seconds is None else self.start + seconds - min(RESERVE * seconds, MOST_RESERVE)
        self.not_reached: dict[str, str] = {}  # name -> reason
        self.took: list[float] = []
        self._begun: dict[str, float] = {}
        self._lock = threading.RLock()

    def expects(self, names: Sequence[str]) -> None:
        """These cases will be asked for, in this order. Until a case has ended it counts as not reached."""
        self.not_reached = dict.fromkeys(names, "not started when this was written")

    def left(self) -> float:
        """Seconds until the last case must have ended."""
        return self.end - self.clock()

    def expected(self) -> float:
        """Seconds that the next case may take: the median of the last few; of two, the longer."""
        last = sorted(self.took[-LAST:])
        return last[len(last) // 2] if last else 0.0

    def begin(self, name: str) -> bool:
        """Whether there is time for this case; if so, it counts as started."""
        with self._lock:
            left, expected = self.left(), self.expected()
            if left <= 0 or expected > left:
                self.not_reached[name] = f"may take {expected:.1f} s, as cases before it did, with {max(left, 0.0):.1f} s left"
                return False
            self.not_reached[name] = "started, and not finished when this was written"
            self._begun[name] = self.clock()
            return True

    def ended(self, name: str) -> None:
        """The case has ended, right or wrong."""
        with self._lock:
            self.took.append(self.clock() - self._begun.pop(name))
            del self.not_reached[name]

    def each(self, most: float) -> float:
        """Seconds to measure the next case: half of its share of the time left, at most `most`; the rest is for compiling."""
        waiting = max(len(self.not_reached), 1)
        return most if self.seconds is None else min(most, max(0.05, self.left() / waiting / 2))

    @contextmanager
    def watched(self, finish: Callable[[], int]) -> Iterator[None]:
        """Within this context, if the time runs out during a case, finish() is called and the process exits with its code."""
        if self.seconds is None:
            yield
            return

        def over() -> None:
            code = finish()
            running = ", ".join(self._begun) or "nothing"
            print(f"the time ran out during {running}; stopped here")
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
        """What was not reached, as a sentence."""
        used = f"{self.clock() - self.start:.0f} of {self.seconds:.0f} s used" if self.seconds is not None else ""
        if not self.not_reached:
            return f"every case was reached; {used}"
        return f"not reached, {len(self.not_reached)}: {'; '.join(self.not_reached)}. {used}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the budget, and each case that was not reached with the reason. Empty without a budget."""
        if self.seconds is None:
            return {}
        return {"budget_seconds": self.seconds, "used_seconds": round(self.clock() - self.start, 2),
                "complete": not self.not_reached, "not_reached": dict(self.not_reached)}  # fmt: skip


def leave(code: int) -> None:
    """End the process whatever its threads do: a thread that compiles cannot be interrupted."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def write_json(file: Path | None, found: dict[str, Any]) -> None:
    """Write the whole file or none of it: a draft beside it is renamed. Does nothing if file is None."""
    if file is not None:
        with writing(file) as draft:
            draft.write_text(json.dumps(found, indent=1) + "\n")
