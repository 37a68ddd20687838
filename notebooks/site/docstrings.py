"""nnjax's docstrings are plain text with equations: here they become reStructuredText, and the backward by hand joins them."""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LABELS = r"[A-Za-z_]\w*(?:, [A-Za-z_]\w*)*: "  # `scale, offset: (n,)`
ITEM = re.compile(rf"(?:(?<=[.;] )|^)(?={LABELS})")
FIRST = re.compile(rf"({LABELS}[^;]*?\)), (?={LABELS}\()")  # the first of `x: (..., n), y: (...)`
BREAK = re.compile(r" {2,}|(?<=[.)]) (?=Raises |See `)")
WIDTH = 120  # of a docstring's lines, or a little more
EQUATION = re.compile(r"[^.`]{1,70}? (=|->) ")
PAIRS = {  # where the backward has another name than the function
    "nnjax.ops.attention": "nnjax.layers.attend.attend_bwd",
    **dict.fromkeys(("nnjax.ops.swiglu", "nnjax.ops.geglu"), "nnjax.layers.gating.gate.gate_bwd"),
    **dict.fromkeys(("nnjax.swiglu", "nnjax.geglu"), "nnjax.layers.gating.gated.gated_bwd"),
}


def escaped(text: str) -> str:
    """Plain text as reStructuredText; a name between backticks is a link where the site has it, all else between them code."""

    def code(part):
        return f":py:obj:`{part}`" if re.fullmatch(r"[A-Za-z_][\w.]*", part) else f"``{part}``"

    parts = re.split(r"`([^`]+)`", text)
    return "".join(code(part) if i % 2 else re.sub(r"([\\*_|`])", r"\\\1", part) for i, part in enumerate(parts))


def blocks(lines: list[str]) -> list[list[str]]:
    """The paragraphs of a docstring."""
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line)
        else:
            found.append([])
    return [block for block in found if block]


def joined(block: list[str]) -> str:
    """The lines of a paragraph as one; a line that ends before it had to ends with a break."""
    lines = [line.strip() for line in block]
    text = lines[0]
    for line, after in zip(lines, lines[1:]):
        early = line.endswith((".", ";")) and len(line) + 1 + len(after.split()[0]) <= WIDTH
        text += ("  " if early else " ") + after
    return text


def rows(block: list[str]) -> list[tuple[str, str]]:
    """The (term, text) of a paragraph in two columns, [] for any other."""
    left = min(len(line) - len(line.lstrip()) for line in block)
    if sum(line[left] == " " or re.search(r"\S {3,}\S", line) is not None for line in block) < 2:
        return []
    found: list[tuple[str, str]] = []
    for line in block:
        if line[left] == " ":
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
        else:
            term, *text = re.split(r" {2,}", line.strip(), maxsplit=1)
            found.append((term, *text) if text else (term, ""))
    return found


def items(text: str) -> Iterator[str]:
    """The parts of a sentence that begin with a name and a colon, each alone."""
    for item in ITEM.split(text):
        while first := FIRST.match(item):
            yield first[1]
            item = item[first.end() :]
        yield item


def paragraphs(text: str, first: bool) -> list[str]:
    """Sentences as the paragraphs, equations and items that they are."""
    made: list[str] = []
    for n, part in enumerate(BREAK.split(text)):
        left = EQUATION.match(part) if first and n == 0 else None
        if left and "), " not in left[0]:
            made += [".. container:: equation", "", f"    {escaped(part)}", ""]
            continue
        for item in items(part):
            label = re.match(LABELS, item)
            if label:
                made.append(f"* ``{label[0][:-2]}``: {escaped(item[label.end() :].strip(' ;,'))}")
            elif item:
                said = escaped(item.strip())
                made += ["", re.sub(r"^Raises ", "**Raises** ", said), ""]
    return [*made, ""]


def by_hand(name: str, obj: Any) -> list[str]:
    """The backward that stands beside a factory, as it is in the file."""
    at, _, pair = PAIRS.get(name, f"{getattr(obj, '__module__', '')}.{getattr(obj, '__name__', '')}_bwd").rpartition(".")
    bwd = getattr(sys.modules.get(at), pair, None)
    if bwd is None:
        return []
    where = Path(*at.split(".")).with_suffix(".py")
    source = inspect.getsource(bwd).splitlines()
    return [".. code-block:: python", f"    :caption: by hand, in {where}", "", *(f"    {line}" for line in source), ""]


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """What autodoc calls with each docstring, to be changed in place."""
    made: list[str] = []
    for i, block in enumerate(blocks(lines)):
        if block[0].lstrip().startswith(">>>"):
            made += [*block, ""]
        elif table := rows(block):
            made += [line for term, text in table for line in (f"``{term}``", f"    {escaped(text) or '..'}", "")]
        else:
            made += paragraphs(joined(block), first=i == 0)
    lines[:] = [*made, *by_hand(name, obj)]
