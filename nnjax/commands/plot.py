"""`nnjax plot RUN`: pictures of metrics.jsonl and trajectory.jsonl; of several, one picture and a table to compare them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ..data.files import writing
from ..train.checkpoint_folder import CheckpointError, manifest_of, place, steps
from ..train.watching.alignment import ANGLE, PSEUDO, RATIO
from ..train.watching.metrics import RECORD, read_lines
from ..train.watching.watch import APART, NORM

STEP = ("step", "loss", "params_apart", "loss_apart")  # fields of every line of trajectory.jsonl
SCORES = ("validation_accuracy", "validation_r2", "test_accuracy", "test_r2")  # the first that was recorded is compared
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
COLORS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's
FEW = 30  # epochs: up to so many are drawn as points too, so that a single one can be seen
LAST = {
    "loss": "loss", "validation_loss": "validation loss", "validation_accuracy": "validation accuracy",
    "validation_r2": "validation R²", "test_accuracy": "test accuracy", "test_r2": "test R²",
}  # fmt: skip
ROOM = {"loss": 80, "epochs": 100}  # the least width of the terminal where these of them are told
NAMED = 12  # lines that fit into a legend


def columns(path: Path, fields: tuple[str, ...] = RECORD) -> dict[str, list[float]]:
    """Every field of a file of JSON lines, as a column; NaN where missing. Raises ValueError for a file that cannot be read."""
    try:
        lines = read_lines(path, fields)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; train with --folder, and pass that folder.") from None
    names = dict.fromkeys(name for line in lines for name in line)
    return {n: [float("nan") if line.get(n) is None else line[n] for line in lines] for n in names}


def _figure(panels: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * panels, 3.8), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, panels)).tolist()
    for ax in axes:
        ax.grid(alpha=0.3)
    return figure, axes


def _points(epochs: Any) -> str:
    return "." if len(epochs) <= FEW else ""


def _counted(*axes: Any) -> None:
    """Epochs are whole numbers."""
    from matplotlib.ticker import MaxNLocator

    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _finite(values: Iterable[float]) -> bool:
    return any(v == v for v in values)


def curves(columns: dict[str, Any], file: Path) -> None:
    """Loss and accuracies or R², epoch by epoch."""
    figure, (left, right) = _figure(2)
    epoch = columns["epoch"]
    marker = _points(epoch)
    left.plot(epoch, columns["loss"], color=BLUE, marker=marker, label="training")
    if "validation_loss" in columns:
        left.plot(epoch, columns["validation_loss"], color=ORANGE, marker=marker, label="validation")
    left.set(xlabel="epoch", ylabel="loss")
    left.legend()
    what, score = ("R²", "_r2") if "test_r2" in columns else ("accuracy", "_accuracy")
    for part, color in (("validation", ORANGE), ("test", GREEN)):
        if _finite(columns[part + score]):
            right.plot(epoch, columns[part + score], color=color, marker=marker, label=part)
    right.set(xlabel="epoch", ylabel=what)
    if what == "R²" and right.get_ylim()[0] < -1:
        right.set_ylim(-1, 1.05)  # R² of an untrained network is far below 0
    if right.lines:
        right.legend()
    _counted(left, right)
    figure.savefig(file, dpi=100)


def compared(runs: dict[str, dict[str, Any]], file: Path) -> None:
    """Loss and accuracy, or R², of several runs, by name."""
    figure, (left, right) = _figure(2)
    scores: set[str] = set()
    for i, (name, columns) in enumerate(runs.items()):
        epoch, style = columns["epoch"], ("-", ":")[i // len(COLORS) % 2]
        how = {"color": COLORS[i % len(COLORS)], "marker": _points(epoch), "ls": style, "label": name}
        left.plot(epoch, columns["loss"], **how)
        if "validation_loss" in columns:
            left.plot(
                epoch,
                columns["validation_loss"],
                **how | {"ls": "--", "marker": _points(epoch) and "x", "label": f"{name}, validation"},
            )
        score = next((s for s in SCORES if _finite(columns.get(s, ()))), SCORES[0])
        scores.add("R²" if score.endswith("_r2") else "accuracy")
        label = f"{name}, test" if score.startswith("test") else name
        right.plot(epoch, columns[score], **how | {"label": label})
    left.set(xlabel="epoch", ylabel="loss", title="loss")
    what = " or ".join(sorted(scores))
    right.set(xlabel="epoch", ylabel=what, title=f"validation {what}")
    for ax in (left, right):
        ax.legend(fontsize=7)
    _counted(left, right)
    with writing(file) as draft:
        figure.savefig(draft, dpi=100, format=file.suffix.removeprefix(".") or "png")


def size(folder: Path) -> tuple[int, int] | None:
    """How many numbers the parameters of a saved run have, and its steps; None where no checkpoint tells."""
    try:
        manifest = manifest_of(place(folder / "checkpoints", steps(folder / "checkpoints")[-1]))
    except (CheckpointError, IndexError):
        return None
    shapes = [leaf["shape"] for leaf in manifest["leaves"] if leaf["name"].startswith("params")]
    return sum(map(math.prod, shapes)), manifest["step"]


def side_by_side(runs: dict[str, dict[str, Any]], sizes: Sequence[tuple[int, int] | None], width: int) -> Table:
    """The size and steps of several runs, and the last value of what was recorded of each, in as many columns as fit."""
    table = Table(box=SIMPLE, padding=(0, 0, 0, 1), show_edge=False)
    table.add_column("run", overflow="fold")
    last = {heading: [_last(columns.get(field, ())) for columns in runs.values()] for field, heading in LAST.items()}
    told = {
        "parameters": ["-" if n is None else f"{n[0]:,}" for n in sizes],
        "steps": ["-" if n is None else f"{n[1]:,}" for n in sizes],
        "epochs": [str(len(columns["epoch"])) for columns in runs.values()],
    } | {heading: values for heading, values in last.items() if set(values) != {"-"}}
    told = {heading: values for heading, values in told.items() if width >= ROOM.get(heading, 0)}
    for heading in told:
        table.add_column(heading, justify="right", min_width=max(map(len, heading.split())))
    for row in zip(runs, *told.values()):
        table.add_row(*row)
    return table


def _last(values: Sequence[float]) -> str:
    return f"{values[-1]:.4f}" if values and _finite(values[-1:]) else "-"


def _by_layer(ax: Any, columns: dict[str, Any], prefix: str) -> None:
    """What was measured of every layer or parameter, from blue for the first to orange for the last.

    If there are many, the legend names a few, among them the first and the last.
    """
    names = [name for name in columns if name.startswith(prefix)]
    for i, name in enumerate(names):
        shade = i / max(1, len(names) - 1)
        told = len(names) <= NAMED or name in {names[j] for j in np.linspace(0, len(names) - 1, NAMED // 2).astype(int)}
        ax.plot(columns["epoch"], columns[name], color=(0.1 + 0.8 * shade, 0.35, 0.75 - 0.6 * shade),
                marker=_points(columns["epoch"]), label=name.removeprefix(prefix) if told else None)  # fmt: skip
    ax.legend(fontsize=7, title=None if len(names) <= NAMED else f"{len(names)}, in this order")
    _counted(ax)


def angles(columns: dict[str, Any], file: Path) -> None:
    """The angle between what the feedback sent back and the gradient, layer by layer."""
    panels = [(ANGLE, "angle to the gradient", "degrees"), (RATIO, "norm over the gradient's", "ratio")]
    if any(name.startswith(PSEUDO) for name in columns):
        panels.append((PSEUDO, "W against B's pseudo-inverse", "degrees"))
    figure, axes = _figure(len(panels))
    for ax, (prefix, title, unit) in zip(axes, panels):
        _by_layer(ax, columns, prefix)
        if unit == "degrees":
            ax.axhline(90, color="black", lw=1, ls=":")
        ax.set(xlabel="epoch", ylabel=unit, title=title, yscale="log" if unit == "ratio" else "linear")
    figure.savefig(file, dpi=100)


def gradients(columns: dict[str, Any], file: Path) -> None:
    """The norm of every parameter's gradient, and the distance between the two gradients."""
    figure, (left, right) = _figure(2)
    _by_layer(left, columns, NORM)
    left.set(xlabel="epoch", ylabel="2-norm", yscale="log", title="gradient of each parameter")
    right.plot(columns["epoch"], columns[APART], color=BLUE, marker=_points(columns["epoch"]))
    _counted(right)
    right.axhline(np.finfo(np.float32).eps, color="black", lw=1, ls=":", label="float32's rounding")
    right.set(xlabel="epoch", ylabel="|hand - jax| / |jax|", yscale="log", title="gradient by hand against jax.grad")
    right.legend()
    figure.savefig(file, dpi=100)


def drift(columns: dict[str, Any], file: Path) -> None:
    """How far the run by hand and the run by jax.grad are apart, step by step."""
    figure, (left, right) = _figure(2)
    steps = range(1, len(columns["loss"]) + 1)
    left.plot(steps, columns["loss"], color=BLUE, lw=0.8)
    left.set(xlabel="step", ylabel="loss", title="the run by hand")
    for name, color in (("params_apart", BLUE), ("loss_apart", ORANGE)):
        values = np.asarray(columns[name], float)
        style = "-" if name == "params_apart" else "."  # the losses are often equal, which would break a line
        right.plot(steps, np.where(values > 0, values, np.nan), style, color=color, ms=2, label=name.removesuffix("_apart"))
    right.set(xlabel="step", ylabel="relative distance", yscale="log", title="from the run by jax.grad")
    right.legend()
    figure.savefig(file, dpi=100)


@dataclass
class Plot:
    """Draw what a run recorded (curves, gradients, drift) as PNG files in its folder; or compare several, in one picture and in
    a table of their sizes and last values."""

    run_folder: tyro.conf.Positional[Path]
    """The folder that `nnjax train --folder` wrote."""

    others: tyro.conf.Positional[tuple[Path, ...]] = ()
    """More such folders, to compare the runs."""
    out: Path | None = None
    """The picture that compares them; by default compare.png, here."""

    def run(self) -> int:
        """Write the pictures and name them."""
        if self.others:
            return self._compare((self.run_folder, *self.others))
        if self.out is not None:
            raise ValueError("plot: --out is only for the picture of several runs; name their folders, or leave it out.")
        found, folder = _records(self.run_folder), self.run_folder
        made = [folder / "curves.png"]
        curves(found, made[0])
        if APART in found:
            made.append(folder / "gradients.png")
            gradients(found, made[-1])
        if any(name.startswith(ANGLE) for name in found):
            made.append(folder / "angles.png")
            angles(found, made[-1])
        if (folder / "trajectory.jsonl").is_file():
            made.append(folder / "trajectory.png")
            drift(columns(folder / "trajectory.jsonl", STEP), made[-1])
        print("\n".join(map(str, made)))
        return 0

    def _compare(self, folders: tuple[Path, ...]) -> int:
        names = [folder.resolve().name for folder in folders]
        names = [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders)]
        out = self.out or Path("compare.png")
        runs = {name: _records(folder) for name, folder in zip(names, folders)}
        compared(runs, out)
        console = Console()
        console.print(side_by_side(runs, [size(folder) for folder in folders], console.width))
        print(out)
        return 0


def _records(folder: Path) -> dict[str, list[float]]:
    found = columns(folder / "metrics.jsonl")
    if not found:
        raise ValueError(f"{folder / 'metrics.jsonl'} is empty: no epoch has ended yet; wait until one has.")
    return found
