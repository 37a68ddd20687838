"""The number of kernels that one run of a compiled program launches on a GPU."""

import re

from ..text.hlo import branches_of, computations, trips_of

OPCODE = re.compile(r"^\s*(?:ROOT )?%?[\w.\-]+ = .*? ([a-z][\w\-]*)\(")
CALLED = re.compile(r"(?:calls|to_apply|body)=%?([\w.\-]+)")
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "partition-id", "replica-id",
    "add-dependency", "copy-done", "async-done", "async-update",
}  # fmt: skip


def launches_of(text: str) -> int:
    """The launches of a compiled program (`compiled.as_text()`): its instructions, those of a loop as often as it runs, of a
    condition those of its longest branch. Instructions that only name or arrange arrays do not count.

    Raises ValueError for a loop whose length XLA does not know, and for text that is not a compiled program.
    """
    entry, bodies, _ = computations(text)

    def of(name: str) -> int:
        return sum(launched(line) for line in bodies.get(name, ()))

    def launched(line: str) -> int:
        line = re.sub(r"/\*.*?\*/", "", line)
        found = OPCODE.match(line)
        if not found or found.group(1) in FREE or found.group(1).endswith("-done"):
            return 0
        opcode = found.group(1)
        if opcode == "while":
            trips = trips_of(line)
            if trips is None:
                raise ValueError(f"cost: XLA does not know how often the loop {line.split('=')[0].strip()} runs.")
            return trips * sum(map(of, CALLED.findall(line)))
        if opcode == "conditional":
            return max(map(of, branches_of(line)), default=0)
        if opcode == "call":
            return sum(map(of, CALLED.findall(line)))
        return 1

    return of(entry)
