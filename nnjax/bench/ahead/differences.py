"""Where and how the messages of a compiled program differ from the minimum that it has to send."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..links import Links, ring_seconds
from ..minimum import Need
from ..text.cost import Message, axes_of

LANES = 128  # numbers in a row of a TPU's vector registers
FILLED = f"zeros that fill the shares up to rows of {LANES}"
ITEMSIZE = 4  # of the minimum's numbers, which are float32


class Sum(NamedTuple):
    """The sum of all messages of one kind along the same axes. overlapping: bytes that are sent during computation."""

    messages: int = 0
    bytes: int = 0
    numbers: int = 0
    overlapping: int = 0


Sums = dict[tuple[tuple[str, ...], str], Sum]


def sums(messages: Sequence[Message | Need], mesh: Mapping[str, int]) -> Sums:
    """{(axes, kind): their sum}."""
    found: Sums = {}
    for m in messages:
        key = (m.axes if isinstance(m, Need) else axes_of(m, mesh), m.kind)
        numbers, overlaps = (m.bytes // ITEMSIZE, False) if isinstance(m, Need) else (m.numbers, m.overlaps)
        had = found.get(key, Sum())
        found[key] = Sum(had.messages + m.times, had.bytes + m.times * m.bytes, had.numbers + m.times * numbers,
                         had.overlapping + m.times * m.bytes * overlaps)  # fmt: skip
    return dict(sorted(found.items()))


def handed_on(found: Sums, mesh: Mapping[str, int]) -> float:
    """Bytes that a device sends if every collective runs in rings (Thakur et al. 2005)."""
    links, total = Links(bandwidth=1.0, latency=0.0), 0.0
    for (axes, kind), s in found.items():
        p = math.prod(mesh[axis] for axis in axes)
        if kind in ("all-reduce", "all-gather", "reduce-scatter"):
            total += ring_seconds(kind, s.bytes, p, links)
        else:
            total += s.bytes if kind != "all-to-all" else s.bytes * (p - 1) / p
    return total


def differences(least: Sums, asked: Sums, sent: Sums, mesh: Mapping[str, int]) -> dict[tuple[tuple[str, ...], str], str]:
    """A sentence for each (axes, kind): whether it is the minimum, or merged, split, or exchanged for another kind.

    asked: the messages of the program before XLA compiles it. Rules compare the numbers of messages and of elements of each
    kind along the same axes; cases that no rule covers are called not explained.
    """
    found = {}
    for axes in dict.fromkeys(axes for axes, _ in {**least, **sent}):
        kinds = sorted({kind for part in (least, sent) for on, kind in part if on == axes})
        fewest = {kind: least.get((axes, kind), Sum()) for kind in kinds}
        here = {kind: sent.get((axes, kind), Sum()) for kind in kinds}
        devices = math.prod(mesh[axis] for axis in axes)
        more = {k: here[k].numbers - fewest[k].numbers for k in kinds}
        moved = _exchanged(more, devices)
        gathers = here.get("all-gather", Sum()).messages
        if 0 < more.get("all-gather", 0) < gathers * devices * LANES and "all-gather" not in moved:
            moved["all-gather"] = FILLED
        for kind in kinds:
            had = asked.get((axes, kind), Sum()).messages
            found[axes, kind] = _said(fewest[kind], had, here[kind], moved.get(kind, "not explained"))
    return dict(sorted(found.items()))


def _exchanged(more: dict[str, int], devices: int) -> dict[str, str]:
    """For each kind with other numbers than the minimum: what it was exchanged for, or what it replaces."""
    less = {kind: -n for kind, n in more.items() if n < 0}
    for kind, n in more.items():
        if kind == "all-reduce" and n > 0 and set(less) <= {"all-gather", "reduce-scatter"} and n == sum(less.values()):
            said = dict.fromkeys(less, "as all-reduces, from which a device keeps its share")
            return {**said, kind: f"in the place of {' and '.join(less)}"}
        if kind == "collective-permute" and n > 0 and n == sum(less.values()) * (devices - 1) // devices:
            return {**dict.fromkeys(less, "from neighbour to neighbour"), kind: f"in the place of {' and '.join(less)}"}
    if set(less) == {"all-reduce"} and more.get("all-gather") == more.get("reduce-scatter") == less["all-reduce"]:
        said = dict.fromkeys(("all-gather", "reduce-scatter"), "instead of all-reduce")
        return {**said, "all-reduce": "as a reduce-scatter and an all-gather"}
    return {}


def _said(fewest: Sum, asked: int, here: Sum, moved: str) -> str:
    more, words = here.numbers - fewest.numbers, []
    if more and moved in (FILLED, "not explained"):
        words.append(f"{more:+,} numbers, {moved}")
    elif more:
        of = "all" if not here.numbers else f"{abs(more):,} numbers"
        words.append(f"exchanged: {of} {moved}")
        rest = here.messages and fewest.numbers and more < 0
        words += [f"the rest in {here.messages:,} messages instead of {fewest.messages:,}"] if rest else []
    elif here.messages != fewest.messages:
        how = "as asked for" if here.messages == asked else "split" if here.messages > asked else "merged"
        of = f" of {asked:,}" if here.messages != asked else ""
        words.append(f"{how}: {here.messages:,} messages{of}, the minimum is {fewest.messages:,}")
    narrower = ITEMSIZE * here.numbers - here.bytes
    if narrower:
        words.append(f"{narrower:,} bytes {'fewer, as narrower' if narrower > 0 else 'more, as wider'} numbers")
    if here.overlapping:
        words.append(f"{here.overlapping / here.bytes:.0%} of the bytes while computing")
    return "; ".join(words) or "the minimum"


def uneven(needs: Sequence[Need], mesh: Mapping[str, int]) -> list[int]:
    """The shares of all-gathers, in numbers, that do not fill the rows of a TPU's registers."""
    shares = {need.bytes // ITEMSIZE // math.prod(mesh[a] for a in need.axes) for need in needs if need.kind == "all-gather"}
    return sorted(n for n in shares if n % LANES)
