"""`nnjax reproduce nielsen`: the results of Nielsen's book, chapters 1 to 6, with gradients written by hand.

FOLDER/NAME/SEED/ holds each run: its checkpoints, so that it can be resumed, and done.json once it has ended.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import nielsen
from ..data.dataset import DataError, Dataset
from ..data.images import expand
from ..train.checkpoint import restore
from ..train.checkpoint_folder import steps
from ..train.fit import fit, one_hot
from ..train.recipe import nielsen_predict
from ..train.run import Checkpoints, Fit
from ..train.step import init_state
from .curves import CURVES, Curve, measures, overlay, published
from .rows import ROWS, Row


class Stopped(Exception):
    """A signal has ended a run, which is saved; the argument is the name of the signal."""


class Result(NamedTuple):
    """accuracy: in percent, of the epoch that the book would report; epochs: (validation, test) accuracy of each epoch."""

    seed: int
    accuracy: float
    epoch: int
    last_test: float
    seconds: float
    epochs: list[list[float]]


def write_json(path: Path, content: Any) -> None:
    """Write the whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    draft.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(draft, path)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _keys(seed: int) -> tuple[jax.Array, jax.Array]:
    first, second = jax.random.split(jax.random.key(seed))
    return first, second


def _checkpoints(folder: Path, settings: dict[str, Any], note: Callable[[str], None]) -> Checkpoints:
    folder = folder / "checkpoints"
    return Checkpoints(folder, keep=1, configuration=settings, resume=bool(steps(folder)), on_note=note)


def _ended(done: Fit) -> Fit:
    if done.stopped:
        raise Stopped(done.stopped)
    return done


def _settings(row: Row, seed: int) -> dict[str, Any]:
    own = ("name", "book", "of", "note", "members")
    return {"seed": seed, **{k: v for k, v in row._asdict().items() if k not in own}}


def reported(row: Row, epochs: list[list[float]]) -> int:
    """The index of the epoch whose accuracy the book reports for such a row.

    Chapters 1 and 3: the best. Chapter 6: the last epoch that is best on the validation images; its test accuracy counts.
    """
    validation, test = np.asarray(epochs).T
    if row.of == "validation":
        return int(validation.argmax())
    if row.model == "nielsen":
        return int(test.argmax())
    return int(np.flatnonzero(validation == validation.max())[-1])


def run_row(row: Row, seed: int, data: Dataset, folder: Path, say: Callable[[str], None] = print) -> tuple[Result, Path]:
    """Train this row from this seed, or resume it, or read its result."""
    here = folder / _slug(row.name) / str(seed)
    end, settings = here / "done.json", json.loads(json.dumps(_settings(row, seed)))
    if end.is_file():
        found = json.loads(end.read_text())
        if found["settings"] == settings:
            return Result(**found["result"]), here
        raise ValueError(f"{here} holds a run with other settings; choose another folder, or remove it.")
    init_key, run_key = _keys(seed)
    recipe = row.recipe(data, init_key)

    def told(record):
        say(f"  {row.name}, seed {seed}: epoch {record.epoch}/{row.epochs}, loss {record.loss:.4f}, validation "
            f"{record.validation_accuracy:.4f}, test {record.test_accuracy:.4f}, {record.seconds:.1f} s")  # fmt: skip

    done = _ended(
        fit(
            recipe.hand,
            recipe.params,
            data,
            predict=recipe.predict,
            optimizer=optax.sgd(row.learning_rate),
            epochs=row.epochs,
            batch_size=row.batch,
            key=run_key,
            encode=recipe.encode,
            on_epoch=told,
            checkpoints=_checkpoints(here, settings, say),
        )
    )
    epochs = [[r.validation_accuracy, r.test_accuracy] for r in done.history]
    i = reported(row, epochs)
    result = Result(
        seed, 100 * epochs[i][row.of == "test"], i + 1, 100 * epochs[-1][1], sum(r.seconds for r in done.history), epochs
    )
    write_json(end, {"settings": settings, "result": result._asdict()})
    return result, here


def vote(row: Row, data: Dataset, folder: Path, say: Callable[[str], None] = print) -> Result:
    """The majority vote on the test images of row.members networks with the settings of the row and seeds 0, 1, ..."""
    single = next(r for r in ROWS if r._replace(name="", book=0.0, members=1) == row._replace(name="", book=0.0, members=1))
    counts, seconds = 0, 0.0
    for seed in range(row.members):
        result, here = run_row(single, seed, data, folder, say)
        recipe = row.recipe(data, _keys(seed)[0])
        like = init_state(recipe.params, optax.sgd(row.learning_rate), _keys(seed)[1])
        params = restore(here / "checkpoints", like).state.params
        scores = recipe.predict(params, jnp.asarray(data.test.x))
        counts = counts + jax.nn.one_hot(scores.argmax(-1), data.classes) + 1e-3 * jax.nn.softmax(scores)  # ties by confidence
        seconds += result.seconds
    right = float((np.asarray(counts).argmax(-1) == data.test.y).mean())
    return Result(0, 100 * right, row.epochs, 100 * right, seconds, [])


def run_curve(curve: Curve, data: Dataset, folder: Path, say: Callable[[str], None] = print) -> dict[str, list[float]]:
    """Our lists for a curve of the book, from a single seed, as the book published one run."""
    here = folder / "curves" / _slug(curve.name)
    end = here / "done.json"
    if end.is_file():
        return json.loads(end.read_text())
    init_key, run_key = _keys(0)
    done = _ended(
        fit(
            nielsen.value_and_grad(nielsen.cross_entropy, curve.lmbda, len(data.train.y)),
            nielsen.init(init_key, [data.train.x.shape[1], curve.hidden, data.classes], curve.large),
            data,
            predict=nielsen_predict,
            optimizer=optax.sgd(curve.eta),
            epochs=30,
            batch_size=10,
            key=run_key,
            encode=one_hot(data.classes),
            measure=measures(curve, data),
            checkpoints=_checkpoints(here, {"curve": curve.name}, say),
        )
    )
    found = {name: [record.measured[name] for record in done.history] for name in curve.measures}
    write_json(end, found)
    say(f"  curve {curve.name}: done")
    return found


class Table:
    """The results so far, in results/nielsen.json; every row that ends is added to the file."""

    def __init__(self, results: Path):
        self.path: Path = results / "nielsen.json"
        self.results: Path = results
        self.rows: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            self.rows = {row["name"]: row for row in json.loads(self.path.read_text())["rows"]}

    def add(self, row: Row, found: list[Result]) -> dict[str, Any]:
        """Add one row with the results of its seeds."""
        entry = {
            "name": row.name, "book": row.book, "of": row.of, "ours": round(max(r.accuracy for r in found), 4),
            "note": row.note,
            "settings": {k: v for k, v in _settings(row, 0).items() if k != "seed"},
            "seeds": [{k: v for k, v in r._asdict().items() if k != "epochs"} for r in found],
            "jax": jax.__version__, "device": jax.devices()[0].device_kind, "cores": os.cpu_count(),
            "date": time.strftime("%Y-%m-%d"),
        }  # fmt: skip
        self.rows[row.name] = entry
        order = [r.name for r in ROWS]
        write_json(self.path, {"rows": sorted(self.rows.values(), key=lambda e: order.index(e["name"]))})
        return entry

    def draw(self) -> Path:
        """Draw our accuracies beside the book's, with a dot for every seed."""
        from matplotlib.figure import Figure

        rows = [self.rows[r.name] for r in ROWS if r.name in self.rows]
        figure = Figure(figsize=(8.5, 1.4 + 0.36 * len(rows)), layout="constrained")
        ax = figure.subplots()
        for y, row in enumerate(rows):
            ax.plot(row["book"], y, "|", ms=14, mew=2, color="black", label="the book" if y == 0 else None)
            ours = [seed["accuracy"] for seed in row["seeds"]]
            ax.plot(ours, [y] * len(ours), "o", color="#0072B2", alpha=0.8, label="ours, each seed" if y == 0 else None)
        ax.set_yticks(range(len(rows)), [row["name"] for row in rows])
        ax.invert_yaxis()
        ax.set_xlabel("accuracy, %")
        ax.grid(axis="x", alpha=0.3)
        ax.legend(loc="lower left")
        ax.set_title("Nielsen's networks, trained by hand-written gradients")
        file = self.results / "nielsen_rows.png"
        figure.savefig(file, dpi=90)
        return file


def chosen(quick: bool, everything: bool, only: str | None) -> list[Row]:
    """The rows that these options select; by default those up to ReLU."""
    rows = [r for r in ROWS if (everything or (r.quick if quick else not r.expanded))] if only is None else list(ROWS)
    found = [r for r in rows if only is None or only in r.name]
    if not found:
        raise ValueError(f"reproduce: no row has {only!r} in its name; choose from: {'; '.join(r.name for r in ROWS)}.")
    return found


def reproduce(
    data: Dataset, rows: list[Row], *, seeds: int, folder: Path, results: Path, curves: Path | None,
    say: Callable[[str], None] = print,
) -> Table:  # fmt: skip
    """Train `rows`, each from the seeds 0 ... seeds - 1, and the published curves if their folder is given."""
    table, wide = Table(results), None
    if curves is not None:
        pairs = list(_pairs(data, folder, curves, say))
        overlay(pairs, results / "nielsen_curves.png")
        write_json(results / "nielsen_curves.json", {c.name: {k: v.tolist() for k, v in ours.items()} for c, _, ours in pairs})
    for row in rows:
        if row.expanded and wide is None:
            wide = expand(data)
        of = wide if row.expanded and wide is not None else data
        if row.members > 1:
            found = [vote(row, of, folder, say)]
        else:
            found = []
            for seed in range(seeds):
                found.append(run_row(row, seed, of, folder, say)[0])
                table.add(row, found)
        entry = table.add(row, found)
        each = ", ".join(f"{r.accuracy:.2f} (epoch {r.epoch}, {r.seconds:.0f} s)" for r in found)
        say(f"{row.name}: the book {row.book:.2f} %, ours {entry['ours']:.2f} % of {row.of}: {each}"
            + (f"; {row.note}" if row.note else ""))  # fmt: skip
        table.draw()
    return table


def _pairs(data: Dataset, folder: Path, curves: Path, say) -> Iterator[tuple[Curve, dict[str, Any], dict[str, Any]]]:
    if not curves.is_dir():
        raise DataError(f"{curves} must be a folder; point --curves to the book's published curves, or leave it out.")
    for curve in CURVES:
        theirs = published(curves, curve)
        yield curve, theirs, {name: np.asarray(v) for name, v in run_curve(curve, data, folder, say).items()}
