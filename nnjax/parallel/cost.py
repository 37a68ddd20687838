"""What a compiled program sends: its collectives, read from XLA's text."""

import math
import re
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8,
         "u64": 8}  # fmt: skip
SHAPE = re.compile(r"\b(" + "|".join(BYTES) + r")\[([\d,]*)\]")
CALL = re.compile(r"= (.*?) (" + "|".join(KINDS) + r")(-start)?\((.*)")
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
LOOP = re.compile(r"body=%?([\w.\-]+).*?\"known_trip_count\":\{\"n\":\"(\d+)\"\}")
CALLED = re.compile(r"(?:calls|to_apply|condition|body|true_computation|false_computation)=%?([\w.\-]+)")


class Message(NamedTuple):
    """One collective of a program.  bytes: of its result on one device; times: how often a run comes by."""

    kind: str
    bytes: int
    times: int


def _size(shapes: str) -> int:
    return sum(BYTES[t] * math.prod(int(d) for d in dims.split(",") if d) for t, dims in SHAPE.findall(shapes))


def collectives_of(text: str) -> list[Message]:
    """The collectives of a compiled program (`compiled.as_text()`), those in loops counted as often as they run.

    Raises ValueError for a loop with collectives whose number of rounds XLA does not know.
    """
    bodies: dict[str, list[str]] = {}
    entry, current = "", None
    for line in text.splitlines():
        start = COMPUTATION.match(line.strip()) if line.rstrip().endswith("{") and "->" in line else None
        if start:
            current = bodies.setdefault(start.group(1), [])
            entry = start.group(1) if line.startswith("ENTRY") else entry
        elif current is not None:
            current.append(line)

    def of(name: str) -> list[Message]:
        found = []
        for line in bodies.get(name, ()):
            call = CALL.search(line)
            if call:
                found.append(Message(call.group(2), _size(call.group(1)), 1))
                continue
            loop = LOOP.search(line)
            for inner in CALLED.findall(line):
                messages = of(inner)
                if messages and " while(" in line and not loop:
                    raise ValueError(
                        f"cost: XLA does not know how often the loop {inner} runs, so its messages cannot be counted."
                    )
                rounds = int(loop.group(2)) if loop and inner == loop.group(1) else 1
                found += [m._replace(times=m.times * rounds) for m in messages]
        return found

    return of(entry)
