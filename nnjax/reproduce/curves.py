"""The learning curves that Nielsen publishes with his book, and ours with the same settings, in one picture each."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import nielsen
from ..data.dataset import DataError, Dataset
from ..train.fit import make_accuracy, one_hot
from ..train.recipe import nielsen_predict


class Curve(NamedTuple):
    """One run of the book.  file, path: the place of its published numbers; measures: which of the four lists exist."""

    name: str
    file: str
    path: tuple[Any, ...]
    hidden: int
    eta: float
    lmbda: float
    large: bool
    measures: tuple[str, ...]


# The four lists of a file, in the book's order.
LISTS = ("validation_cost", "validation_accuracy", "training_cost", "training_accuracy")
CURVES = (
    *(Curve(f"{30 if small else 100} neurons, {kind} weights", f"weight_initialization_{30 if small else 100}.json",
            (f"{kind}_weight_initialization",), 30 if small else 100, 0.1, 5.0, kind == "large", ("validation_accuracy",))
      for small in (True, False) for kind in ("default", "large")),
    *(Curve(f"eta = {eta}", "multiple_eta.json", (i,), 30, eta, 5.0, False, ("training_cost",))
      for i, eta in enumerate((0.025, 0.25, 2.5))),
    Curve("lambda = 0", "overfitting_full.json", (), 30, 0.5, 0.0, True, LISTS),
    Curve("lambda = 5", "regularized_full.json", (), 30, 0.5, 5.0, True, LISTS),
)  # fmt: skip


def published(folder: Path, curve: Curve) -> dict[str, np.ndarray]:
    """The book's own lists, epoch by epoch; accuracies as counts of images."""
    path = folder / curve.file
    if not path.is_file():
        raise DataError(f"{path} does not exist; put the book's published curves into {folder}, or leave the curves out.")
    found = json.loads(path.read_text())
    for step in curve.path:
        found = found[step]
    return {name: np.asarray(found[LISTS.index(name)], float) for name in curve.measures}


def measures(curve: Curve, data: Dataset) -> Any:
    """measure(state) -> the next entries of the lists: costs with the penalty, counted as in the book, and counts of images."""
    accuracy = make_accuracy(nielsen_predict)
    splits = {"validation": data.validation, "training": data.train}
    encoded = {name: jnp.asarray(one_hot(data.classes)(s.y)) for name, s in splits.items()}
    costs = {
        name: jax.jit(nielsen.objective(nielsen.cross_entropy, curve.lmbda, len(s.y))) for name, s in splits.items()
    }  # the book divides lambda by the number of images in the cost, also for validation images

    def measure(state):
        found = {}
        for name in curve.measures:
            part, what = name.split("_")
            s = splits[part]
            found[name] = (
                costs[part](state.params, jnp.asarray(s.x), encoded[part])
                if what == "cost"
                else accuracy(state.params, s) * len(s.y)
            )
        return found

    return measure


def overlay(pairs: list[tuple[Curve, dict[str, np.ndarray], dict[str, np.ndarray]]], file: Path) -> None:
    """Draw our curves (lines) over the book's (dots), with a panel for each measure of each file."""
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str], list[Any]] = {}
    for curve, theirs, ours in pairs:
        for name in curve.measures:
            panels.setdefault((curve.file.removesuffix(".json"), name), []).append((curve.name, theirs[name], ours[name]))
    rows = -(-len(panels) // 3)
    figure = Figure(figsize=(13, 3.6 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, min(3, len(panels)))).ravel()
    colors = ("#0072B2", "#D55E00", "#009E73")
    for ax, ((title, name), lines) in zip(axes, panels.items()):
        for (label, theirs, ours), color in zip(lines, colors * 2):
            ax.plot(range(1, len(theirs) + 1), theirs, "o", ms=3, color=color, alpha=0.6)
            ax.plot(range(1, len(ours) + 1), ours, color=color, lw=1.4, label=label)
        ax.set_title(f"{title}: {name.replace('_', ' ')}", fontsize=9)
        ax.set_xlabel("epoch")
        ax.legend(fontsize=7)
        ax.grid(alpha=0.3)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    figure.suptitle("Nielsen's published learning curves (dots) and ours (lines)")
    figure.savefig(file, dpi=90)
