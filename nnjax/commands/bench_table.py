"""The table that `nnjax bench` prints, and its summary."""

import math
from typing import Literal, NamedTuple

from rich.console import Console
from rich.table import Table

from ..bench.measure import Comparison
from ..bench.peaks import Shares
from ..bench.rows.entry import Entry

PEAK = "% of peak"
COLUMNS: tuple[tuple[str, Literal["left", "right"], int], ...] = (  # heading, alignment, least width of the terminal
    ("case", "left", 0), ("ms", "right", 0), ("time", "right", 0), ("target", "right", 80), ("self 5-95 %", "right", 120),
    ("temp", "right", 0), ("target", "right", 80), ("flops", "right", 140), ("compile", "right", 140), (PEAK, "right", 100),
    ("other", "left", 120), ("met", "right", 0),
)  # fmt: skip


class Measured(NamedTuple):
    """A case with what was measured: time ratios to other libraries, and shares of the device's peaks."""

    entry: Entry
    comparison: Comparison
    peers: dict[str, float]
    shares: Shares | None = None


def printed(measured: list[Measured], console: Console) -> None:
    """Print a row for each case, in as many columns as fit."""
    shown = [i for i, (_, _, room) in enumerate(COLUMNS) if console.width >= room]
    table = Table()
    for heading, justify, _ in (COLUMNS[i] for i in shown):
        table.add_column(heading, justify=justify, no_wrap=justify == "right")
    for m in measured:
        cells = _cells(m)
        table.add_row(*(cells[i] for i in shown))
    console.print(table)
    if any(COLUMNS[i][0] == PEAK for i in shown):
        console.print(f"{PEAK}: products / memory, as measured above; memory counts arguments and results, each once.")


def _cells(m: Measured) -> tuple[str, ...]:
    entry, c = m.entry, m.comparison
    others = {**dict(list(c.time_ratios.items())[1:]), **m.peers}
    return (
        c.case, f"{c.milliseconds:.3f}", f"{c.time_ratio:.3f}", f"{entry.time}", f"{c.spread[0]:.2f}-{c.spread[1]:.2f}",
        f"{c.temp_ratio:.3f}", f"{entry.temp}", f"{c.flops_ratio:.3f}", f"{c.compile_ratio:.2f}", of_peaks(m.shares),
        ", ".join(f"{name} {ratio:.2f}" for name, ratio in others.items()), "yes" if entry.met(c) else "NO",
    )  # fmt: skip


def of_peaks(shares: Shares | None) -> str:
    """Percent of both peaks, "-" for one that is not known."""
    if shares is None:
        return ""
    return " / ".join("-" if share is None else f"{100 * share:.0f}" for share in shares)


def summary(measured: list[Measured]) -> str:
    """The means over all cases, and the targets that were missed."""
    times = [m.comparison.time_ratio for m in measured]
    temps = [max(m.comparison.temp_ratio, 1e-3) for m in measured if math.isfinite(m.comparison.temp_ratio)]
    missed = [m.comparison.case for m in measured if not m.entry.met(m.comparison)]
    lines = [f"geometric mean of {len(times)} cases: time {_mean(times):.3f}, temp {_mean(temps):.3f}",
             f"targets met: {len(measured) - len(missed)} of {len(measured)}", *(f"  missed: {m}" for m in missed)]  # fmt: skip
    return "\n".join(lines)


def _mean(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else float("nan")
