"""How often the loops of a compiled program run, if XLA does not say so: evaluate their whole numbers."""

import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .hlo import trips_of

INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
WHOLE = re.compile(r"(pred|[su]\d+)\[(?:1,?)*\]")
CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
SAME = {"copy", "copy-start", "copy-done", "bitcast", "reshape", "convert", "opt-barrier"}
OPERATIONS = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "minimum": min, "maximum": max,
    "and": operator.and_, "or": operator.or_,
}  # fmt: skip
MOST = 2**14  # rounds to evaluate at most

Value = Any  # an int (a bool too), a list of values, or None if unknown


class Instruction(NamedTuple):
    """type: s32, pred and so on of a single whole number, "(" for a tuple, or "" for anything else. inside: the text in and
    after its parentheses."""

    type: str
    opcode: str
    operands: list[str]
    inside: str


class Trips:
    """The loops of a program: `hlo.computations(text).bodies`, the lines of each computation."""

    def __init__(self, bodies: Mapping[str, Sequence[str]]):
        self.bodies = bodies
        self.read: dict[str, tuple[dict[str, Instruction], str]] = {}

    def of(self, line: str, where: str, given: Sequence[Value] = ()) -> int | None:
        """How often this while of the computation `where` runs, or None. given: the known arguments of `where`.

        XLA says it on a CPU and a GPU. Elsewhere the condition and the body are evaluated, round by round, on the known whole
        numbers that the loop starts from. None if these do not decide the condition, or not in time.
        """
        said = trips_of(line)
        if said is not None:
            return said
        now = self._start(line, where, given)
        for n in range(MOST):
            goes = self._result(_called("condition", line), [now])
            if not isinstance(goes, int):
                return None
            if not goes:
                return n
            now = self._result(_called("body", line), [now])
        return None

    def inside(self, line: str, where: str, given: Sequence[Value] = ()) -> list[Value]:
        """The known arguments of the computation that this line calls; for the body of a while, those that hold in all rounds,
        because the body passes them on unchanged."""
        found = INSTRUCTION.match(_bare(line))
        if not found or found.group(3) not in ("while", "call"):
            return []
        start = [self._value(operand, where, given, {}) for operand in _operands(found.group(4))]
        if found.group(3) == "call":
            return start
        instructions, root = self._instructions(_called("body", line))
        if not isinstance(start[0], list) or root not in instructions:
            return []
        ends = instructions[root].operands

        def handed_on(name: str, i: int) -> bool:
            while name in instructions and instructions[name].opcode in SAME:
                name = instructions[name].operands[0]
            found = instructions.get(name)
            return bool(
                found and found.opcode == "get-tuple-element" and _index(found.inside) == i
                and instructions[found.operands[0]].opcode == "parameter"
            )  # fmt: skip

        return [[v if i < len(ends) and handed_on(ends[i], i) else None for i, v in enumerate(start[0])]]

    def _start(self, line: str, where: str, given: Sequence[Value]) -> Value:
        found = INSTRUCTION.match(_bare(line))
        return self._value(_operands(found.group(4))[0], where, given, {}) if found else None

    def _instructions(self, computation: str) -> tuple[dict[str, Instruction], str]:
        if computation not in self.read:
            found, root = {}, ""
            for line in self.bodies.get(computation, ()):
                parts = INSTRUCTION.match(_bare(line))
                if parts:
                    name, shape, opcode, inside = parts.groups()
                    whole = WHOLE.match(shape)
                    kind = whole.group(1) if whole else "(" if shape.startswith("(") else ""
                    found[name] = Instruction(kind, opcode, _operands(inside), inside)
                    root = name if line.lstrip().startswith("ROOT ") else root
            self.read[computation] = found, root
        return self.read[computation]

    def _result(self, computation: str, given: Sequence[Value]) -> Value:
        return self._value(self._instructions(computation)[1], computation, given, {})

    def _value(self, name: str, where: str, given: Sequence[Value], known: dict[str, Value]) -> Value:
        if name not in known:
            found = self._instructions(where)[0].get(name)
            value = self._worked_out(found, where, given, known) if found and found.type else None
            known[name] = value if not isinstance(value, int) or (found and _fits(value, found.type)) else None
        return known[name]

    def _worked_out(self, found: Instruction, where: str, given: Sequence[Value], known: dict[str, Value]) -> Value:
        if found.opcode == "parameter":
            place = int(found.inside.split(")")[0])
            return given[place] if place < len(given) else None
        if found.opcode == "constant":
            number = re.match(r"\{*(-?\d+|true|false)\}*\)", found.inside)
            return int({"true": "1", "false": "0"}.get(number.group(1), number.group(1))) if number else None
        values = [self._value(operand, where, given, known) for operand in found.operands]
        if found.opcode == "tuple":
            return values
        if found.opcode == "get-tuple-element":
            return values[0][_index(found.inside)] if isinstance(values[0], list) else None
        if found.opcode in ("fusion", "call"):
            called = CALLED.search(found.inside)
            return self._result(called.group(1), values) if called else None
        if found.opcode in SAME:
            return values[0]
        if not values or not all(isinstance(v, int) for v in values):
            return None
        if found.opcode in OPERATIONS and len(values) == 2:
            return OPERATIONS[found.opcode](*values)
        if found.opcode == "compare":
            compared = re.search(r"direction=(\w\w)", found.inside)
            return int(getattr(operator, compared.group(1).lower())(*values)) if compared else None
        if found.opcode == "not" and found.type == "pred":
            return 1 - values[0]
        if found.opcode == "select":
            return values[1] if values[0] else values[2]
        return None


def _bare(line: str) -> str:
    return re.sub(r"/\*.*?\*/", "", line)


def _called(what: str, line: str) -> str:
    found = re.search(rf"{what}=%?([\w.\-]+)", line)
    return found.group(1) if found else ""


def _index(inside: str) -> int:
    found = re.search(r"index=(\d+)", inside)
    return int(found.group(1)) if found else -1


def _operands(inside: str) -> list[str]:
    """The names inside the parentheses that have been opened."""
    depth, read = 1, ""
    for letter in inside:
        depth += (letter == "(") - (letter == ")")
        if not depth:
            break
        read += letter
    named = re.findall(r"%([\w.\-]+)", read)
    return named or [part.split()[-1] for part in read.split(",") if part.strip()]


def _fits(value: int, kind: str) -> bool:
    """Whether a number of this type can have this value: one that would wrap around is not evaluated."""
    if kind == "(":
        return True  # the type of a copy that has only started
    bits = 1 if kind == "pred" else int(kind[1:])
    return -(2 ** (bits - 1)) <= value < 2 ** (bits - 1) if kind[0] == "s" else 0 <= value < 2**bits
