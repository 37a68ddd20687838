"""The messages of a compiled program: its collectives, read from XLA's text."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, combinations
from typing import Any, NamedTuple

import numpy as np

from .hlo import branches_of, computations
from .trips import Trips

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast",
         "ragged-all-to-all")  # fmt: skip
ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\]")
DTYPE = re.compile(r"(?:bf|f|s|u|c)(\d+)(?:e\d+m\d+\w*)?|pred")
CALL = re.compile(r" = (\(.*?\)|\S+) (" + "|".join(KINDS) + r")(-start)?\((.*)")
CALLED = re.compile(r"(?:calls|to_apply|condition|body)=%?([\w.\-]+)")
LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}")
COUNTED = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
NAMED = re.compile(r"replica_groups=mesh\[((?:'\w+'=\d+,?)+)\] \{((?:'\w+',?)+)\}")
COMPUTES = re.compile(r" (?:fusion|dot|convolution|while|custom-call|call)\(")
PARTITIONS = re.compile(r"(?:num_partitions|replica_count)=(\d+)")


class Message(NamedTuple):
    """One collective of a program, on each device.

    bytes: of the whole vector, n in the algorithms of Thakur et al. 2005: what is reduced (all-reduce, reduce-scatter), what
    is gathered (all-gather), what a device sends (all-to-all, permute, broadcast).
    times: how often it runs.  groups: the devices, by their place in the mesh, that communicate with one another; for a
    collective-permute the pairs (from, to).  overlaps: whether something is computed between its start and its end.
    numbers: how many numbers the bytes hold.
    """

    kind: str
    bytes: int
    times: int
    groups: tuple[tuple[int, ...], ...]
    overlaps: bool = False
    numbers: int = 0


def collectives_of(text: str) -> list[Message]:
    """The collectives of a program, compiled (`compiled.as_text()`) or about to be (`lowered.as_text("hlo")`).

    Those in loops count as often as they run, one with separate start and end once, one on a single device not at all.
    The all-reduce inside a TPU's all-reduce-scatter, from which each device keeps a share, counts as a reduce-scatter.
    Raises ValueError if the text does not say how often one runs (a loop of unknown length, branches that differ), and for
    text that is not a compiled program.
    """
    entry, bodies, head = computations(text)
    devices, loops = math.prod(int(n) for n in PARTITIONS.findall(head)), Trips(bodies)
    starts, ends = ({name for name, lines in bodies.items() if any(f'"AsyncCollective{what}"' in line for line in lines)}
                    for what in ("Start", "Done"))  # fmt: skip

    def of(name: str, given: Sequence[Any] = ()) -> list[Message]:
        if name in ends or name.startswith("async_collective_fusion"):
            return []  # on a TPU the continuation or end is written again there
        lines = bodies.get(name, ())
        found = [message for i, line in enumerate(lines) for message in sent_by(line, name, given, lines[i + 1 :])]
        if name.startswith("all-reduce-scatter"):
            return [m._replace(kind="reduce-scatter") if m.kind == "all-reduce" else m for m in found]
        return found

    def sent_by(line: str, where: str, given: Sequence[Any], later: Sequence[str]) -> list[Message]:
        call = CALL.search(line)
        if call:
            message = _message(call, devices)._replace(overlaps=_overlaps(line, later))
            return [message] if any(len(group) > 1 for group in message.groups) else []
        if "-done(" in line or "-update(" in line:
            return []  # it was counted at its start
        branches = [of(name) for name in branches_of(line)]
        if any(branch != branches[0] for branch in branches):
            raise ValueError("cost: the branches of a condition send different messages, so they cannot be counted.")
        inside, loop = loops.inside(line, where, given), " while(" in line
        found = [message for name in CALLED.findall(line) for message in of(name, inside)] + (branches[0] if branches else [])
        if "async-start(" in line or starts & set(CALLED.findall(line)):
            return [message._replace(overlaps=_overlaps(line, later, ends)) for message in found]
        if not found or not loop:
            return found
        trips = loops.of(line, where, given)
        if trips is None or any(of(name) for name in re.findall(r"condition=%?([\w.\-]+)", line)):
            named = line.split("=")[0].strip().removeprefix("ROOT ")
            raise ValueError(
                f"cost: neither XLA nor its condition says how often the loop {named} runs, so its messages cannot be counted; "
                "make it a lax.scan or a lax.fori_loop between known whole numbers."
            )
        return [message._replace(times=message.times * trips) for message in found]

    return of(entry)


def _overlaps(line: str, later: Sequence[str], ends: Collection[str] = ()) -> bool:
    """Whether anything is computed before the collective that starts here ends: lines of a compiled program are in run order.

    ends: computations that only end a collective; the next one called is assumed to be this one's.
    """
    name = line.split("=")[0].strip().removeprefix("ROOT ").removeprefix("%")
    done = re.compile(rf"-done\(.*%?{re.escape(name)}[,)]")
    over = (i for i, other in enumerate(later) if done.search(other) or any(c in ends for c in CALLED.findall(other)))
    return any(COMPUTES.search(other) for other in later[: next(over, 0)])


def axes_of(message: Message, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """The axes of a mesh of these sizes along which the message goes.  Raises ValueError if its groups are not axes."""
    axes = [name for name, n in sizes.items() if n > 1]
    for subset in chain.from_iterable(combinations(axes, n) for n in range(1, len(axes) + 1)):
        if sorted(groups_along(sizes, subset)) == sorted(message.groups):
            return subset
    raise ValueError(f"cost: devices of this {message.kind} are not along axes of the mesh {dict(sizes)}: {message.groups}.")


def _message(call: re.Match[str], devices: int) -> Message:
    shape, kind, start, rest = call.groups()
    if start and kind != "all-reduce":
        shape = _second(shape)  # (operands, results, ...)
    groups = _groups(rest, devices)
    scattered = len(groups[0]) if kind == "reduce-scatter" else 1  # the result is one share of what was reduced
    return Message(kind, _bytes(shape) * scattered, 1, groups, False, _numbers(shape) * scattered)


def _second(shape: str) -> str:
    """The second part of a tuple of shapes, a tuple or one."""
    depth, parts = 0, [""]
    for letter in re.sub(r"/\*.*?\*/", "", shape)[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts[1]


def _bytes(shape: str) -> int:
    total = 0
    for name, dims in ARRAY.findall(shape):
        dtype = DTYPE.fullmatch(name)
        if not dtype:
            raise ValueError(f"cost: the size of the type {name} is unknown, so its bytes cannot be counted.")
        total += -(-int(dtype.group(1) or 8) * _product(dims) // 8)
    return total


def _numbers(shape: str) -> int:
    return sum(_product(dims) for _, dims in ARRAY.findall(shape))


def _product(dims: str) -> int:
    return math.prod(int(d.removeprefix("<=")) for d in dims.split(",") if d)


def _groups(rest: str, devices: int) -> tuple[tuple[int, ...], ...]:
    """{{0,1},{2,3}}; [2,4]<=[8] or [4,2]<=[2,4]T(1,0), which enumerate; mesh['a'=2,'b'=4] {'b'}, axes of a mesh; or {}, all."""
    listed, counted, named = LISTED.search(rest), COUNTED.search(rest), NAMED.search(rest)
    if listed:
        return tuple(tuple(int(d) for d in group.split(",")) for group in re.findall(r"\{([\d,]+)\}", listed.group(1)))
    if counted:
        rows, columns = int(counted.group(1)), int(counted.group(2))
        dims = [int(d) for d in counted.group(3).split(",")]
        order = [int(d) for d in counted.group(4).split(",")] if counted.group(4) else None
        ids = np.arange(math.prod(dims)).reshape(dims).transpose(order).reshape(rows, columns)
        return tuple(tuple(row) for row in ids.tolist())
    if named:
        sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", named.group(1))}
        return groups_along(sizes, re.findall(r"\w+", named.group(2)))
    if "replica_groups={}" not in rest and "replica_groups=" in rest:
        raise ValueError(f"cost: cannot read which devices take part in {rest[rest.index('replica_groups=') :][:60]!r}.")
    return (tuple(range(devices)),)


def groups_along(sizes: Mapping[str, int], axes: Collection[str]) -> tuple[tuple[int, ...], ...]:
    """The devices of a mesh, by their place in it, that differ only along these axes.  sizes: of all its axes, in order."""
    ids = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values()))
    order = sorted(range(len(sizes)), key=lambda i: list(sizes)[i] in axes)
    rows = ids.transpose(order).reshape(-1, math.prod(n for name, n in sizes.items() if name in axes))
    return tuple(tuple(row) for row in rows.tolist())
