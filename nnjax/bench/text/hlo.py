"""The text of a compiled program: its computations, and which of them a line calls."""

import re
from typing import NamedTuple

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) (?:\(.*->.*)?\{$")
TRIPS = re.compile(r"\"known_trip_count\":\{\"n\":\"(\d+)\"\}")
BRANCHES = re.compile(r"branch_computations=\{(.*?)\}")
BRANCH = re.compile(r"(?:true|false)_computation=(%?[\w.\-]+)")


class Text(NamedTuple):
    """bodies: the lines of each computation; head: the line of the module, which names its devices."""

    entry: str
    bodies: dict[str, list[str]]
    head: str


def computations(text: str) -> Text:
    """The parts of `compiled.as_text()`. Raises ValueError for text that is not a compiled program."""
    bodies: dict[str, list[str]] = {}
    entry, current, head = None, None, ""
    for line in text.splitlines():
        start = COMPUTATION.match(line.rstrip())
        head = line if line.startswith("HloModule") else head
        if start:
            current = bodies.setdefault(start.group(1), [])
            entry = start.group(1) if line.startswith("ENTRY") else entry
        elif current is not None:
            current.append(line)
    if entry is None:
        raise ValueError("cost: expected the text of a compiled program, got one without ENTRY; pass compiled.as_text().")
    return Text(entry, bodies, head)


def branches_of(line: str) -> list[str]:
    """The computations among which a conditional chooses."""
    listed = BRANCHES.search(line)
    found = listed.group(1).split(",") if listed else BRANCH.findall(line)
    return [name.strip().removeprefix("%") for name in found]


def trips_of(line: str) -> int | None:
    """How often a while runs, if XLA says so."""
    found = TRIPS.search(line)
    return int(found.group(1)) if found else None
