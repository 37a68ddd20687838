"""The bar chart of `nnjax bench --plot`."""

from pathlib import Path

from .measure import Comparison


def bars(found: list[Comparison], file: Path, title: str) -> None:
    """Draw time and temporary memory of the hand-written backward relative to jax.grad, a pair of bars for each case."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("bench: --plot needs matplotlib: python -m pip install 'nnjax[notebooks]'") from None
    figure = Figure(figsize=(8, 1.2 + 0.34 * len(found)), layout="constrained")
    axes = figure.subplots()
    rows = range(len(found))
    axes.barh([r - 0.2 for r in rows], [c.time_ratio for c in found], 0.38, color="#0072B2", label="time")
    axes.barh([r + 0.2 for r in rows], [c.temp_ratio for c in found], 0.38, color="#E69F00", label="temporary memory")
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_yticks(rows, [c.case for c in found])
    axes.set_xlim(0, 1.6)  # the temp ratio of small buffers can be arbitrary
    axes.invert_yaxis()
    axes.set_xlabel("hand-written / jax.grad (lower is better)")
    axes.set_title(title)
    axes.legend(loc="lower right")
    figure.savefig(file, dpi=100)
