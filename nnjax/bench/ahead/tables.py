"""The figures of programs compiled for machines that are not here, as tables, as JSON and as a drawing."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from .figures import Figures

HAND, PLAIN = "hand", "jax.grad"
Cases = Mapping[str, Mapping[str, Figures | str]]  # {case: {program: figures, or why there are none}}
COLUMNS = {"launches": ("launches", "temp_bytes"), "bytes": ("bytes", "temp_bytes", "flops")}  # for a GPU, for a TPU
COUNT, ABOVE = 1 << 20, 1.2  # bytes: smaller temporaries are in no mean; launches: larger ratios are listed


def ratio(programs: Mapping[str, Figures | str], what: str, of: str = HAND, to: str = PLAIN) -> float:
    """One figure of a program over that of another; NaN if one is unknown, or both are 0."""
    a, b = (getattr(programs.get(name), what, None) for name in (of, to))
    if a is None or b is None or (a == 0 and b == 0):
        return math.nan
    return a / b if b else math.inf


def mean(ratios: list[float], least: float = 1e-3) -> float:
    """The geometric mean of the known ones."""
    known = [max(r, least) for r in ratios if math.isfinite(r)]
    return math.exp(sum(map(math.log, known)) / len(known)) if known else math.nan


def plain_of(programs: Mapping[str, Any]) -> str:
    """The reference to compare with: jax.grad, with the same number of microbatches if there is one."""
    return "microbatches" if "microbatches" in programs else PLAIN


def line(case: str, programs: Mapping[str, Figures | str], of: str = HAND, to: str | None = None) -> str:
    """A compiled case as one line."""
    to = to or plain_of(programs)
    found = programs.get(of)
    if not isinstance(found, Figures):
        return f"{case}: {found}"
    main = "launches" if found.launches is not None else "bytes"
    parts = [f"{what.removesuffix('_bytes')} {_number(programs, what, of)} ({_shown(ratio(programs, what, of, to))})"
             for what in COLUMNS[main]]  # fmt: skip
    return f"{case}: {', '.join(parts)}"


def _number(programs: Mapping[str, Figures | str], what: str, name: str) -> str:
    found = programs[name]
    if isinstance(found, str):
        return "-"
    value = getattr(found, what)
    if value is None:
        return "-"
    return f"{value:,}" if what == "launches" else f"{value / 1e6:,.2f} M{'B' if 'bytes' in what else ''}"


def show(target: str, cases: Cases) -> None:
    """Print a table of one target: the hand-written program, and, if it fits, its ratio to each reference."""
    console = Console() if Console().is_terminal else Console(width=140)
    table = Table(box=SIMPLE, padding=(0, 0, 0, 1), show_edge=False)
    main = next((f for programs in cases.values() for f in programs.values() if isinstance(f, Figures)), None)
    columns = COLUMNS["launches" if main is not None and main.launches is not None else "bytes"]
    columns = columns if console.width >= 80 else columns[:2]
    more = [heading for heading, least in (("args", 100), ("compile", 100), ("over others", 120)) if console.width >= least]
    table.add_column("case", overflow="fold")
    for heading in (*(what.replace("temp_bytes", "temp") for what in columns), *more):
        table.add_column(heading, justify="left" if heading == "over others" else "right", overflow="fold")
    for case, programs in cases.items():
        hand = programs.get(HAND)
        if not isinstance(hand, Figures):
            table.add_row(case, str(hand))
            continue
        plain = plain_of(programs)
        others = "; ".join(
            f"{name} {_shown(ratio(programs, columns[0], to=name))}, {_shown(ratio(programs, 'temp_bytes', to=name))}"
            for name in programs if name not in (HAND, plain)
        )  # fmt: skip
        last = {
            "args": f"{hand.argument_bytes / 1e6:,.2f} MB",
            "compile": f"{hand.compile_seconds:.1f} s",
            "over others": others,
        }
        shown = [f"{_number(programs, what, HAND)} ({_shown(ratio(programs, what, to=plain))})" for what in columns]
        table.add_row(case, *shown, *(last[heading] for heading in more))
    print(f"\n{target}, compiled but not run; in brackets: hand / jax.grad")
    console.print(table)
    print("\n".join(summary(target, cases)))


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def summary(target: str, cases: Cases) -> list[str]:
    """The means over the cases, and the cases with a large ratio."""
    of = {name: programs for name, programs in cases.items() if isinstance(programs.get(HAND), Figures)}
    counted = {n: p for n, p in of.items() if getattr(p.get(plain_of(p)), "temp_bytes", 0) >= COUNT}
    temps = [ratio(p, "temp_bytes", to=plain_of(p)) for p in counted.values()]
    lines = [f"{target}: {len(of)} of {len(cases)} cases compiled; geometric means of hand / jax.grad:"]
    for what in ("launches", "bytes"):
        ratios = {name: ratio(p, what, to=plain_of(p)) for name, p in of.items()}
        if any(map(math.isfinite, ratios.values())):
            lines.append(f"  {what} {mean(list(ratios.values())):.3f}")
            for name, r in ratios.items():
                if math.isfinite(r) and r > ABOVE:
                    temp = ratio(of[name], "temp_bytes", to=plain_of(of[name]))
                    lines.append(f"    above {ABOVE}: {name} {r:.2f}, with {_shown(temp)} of the temporary memory")
    lines.append(f"  temporary memory {mean(temps):.3f}, over {len(counted)} where jax.grad needs {COUNT >> 20} MB or more")
    lines += [f"  {name}, {label}: {said}" for name, p in cases.items() for label, said in p.items() if isinstance(said, str)]
    return lines


def record(found: Mapping[str, Cases]) -> dict[str, Any]:
    """Everything, ready for JSON: {"targets": {target: {case: {program: figures, or why there are none}}}}."""

    def plain(said: Figures | str) -> Any:
        return said._asdict() if isinstance(said, Figures) else said

    targets = {
        t: {c: {n: plain(f) for n, f in programs.items()} for c, programs in cases.items()} for t, cases in found.items()
    }
    return {"jax": jax.__version__, "date": time.strftime("%Y-%m-%d"), "targets": targets}


def draw(found: Mapping[str, Cases], file: Path) -> None:
    """Draw a panel for each target: launches (on a TPU bytes) and temporary memory relative to jax.grad, two dots per case."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("bench: --plot needs matplotlib: python -m pip install 'nnjax[notebooks]'") from None
    names = list(next(iter(found.values())))
    figure = Figure(figsize=(8, 1.4 + 0.2 * len(names)), layout="constrained")
    for axes, (target, cases) in zip(figure.subplots(1, len(found), sharey=True, squeeze=False)[0], found.items()):
        gpu = any(isinstance(f, Figures) and f.launches is not None for p in cases.values() for f in p.values())
        for what, color, shift in (("launches" if gpu else "bytes", "#0072B2", -0.15), ("temp_bytes", "#E69F00", 0.15)):
            values = [ratio(cases[name], what, to=plain_of(cases[name])) for name in names]
            shown = [min(max(v, 0.02), 4) for v in values]
            axes.plot(shown, [r + shift for r in range(len(names))], "o", ms=4, color=color, label=what)
        axes.axvline(1, color="black", lw=1)
        axes.set(xscale="log", xlim=(0.017, 5), title=target, xlabel="by hand / jax.grad")
        axes.set_xticks([0.02, 0.1, 0.3, 1, 3], ["0.02", "0.1", "0.3", "1", "3"])
        axes.minorticks_off()
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set_ylim(len(names) - 0.4, -0.6)
    handles, _ = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, ["launches (on a TPU: bytes)", "temporary memory"], loc="outside lower center", ncols=2)
    figure.savefig(file, dpi=100)
