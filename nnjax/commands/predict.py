"""`nnjax predict RUN DATA`: what a trained network predicts, classes and probabilities, or numbers."""

import csv
import math
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tyro

from ..data.dataset import Dataset
from ..data.files import writing
from ..data.rows import Known, Raw, load_rows
from ..data.text import Text
from ..errors import expect_folder
from ..train.trained.load import Trained, load_run
from ..train.trained.prediction import Numbers, Prediction, r2
from ..train.trained.record import CLASSES, NUMBERS, Record

SHOWN = 10  # rows on the screen
WIDE = 3  # targets on the screen
KINDS = (".npz", ".csv")


def opened(folder: Path, best: bool) -> Trained:
    """Load the run, and print a line on stderr for each damaged checkpoint that was skipped."""
    run = load_run(folder, best=best)
    for note in run.skipped:
        print(f"skipped: {note}", file=sys.stderr)
    return run


def usage(folder: Path, name: str, data: Dataset | Text) -> str:
    """The command that uses a run that was trained on the data of this name."""
    where = shlex.quote(str(folder))
    if isinstance(data, Dataset):
        return f"to use it: nnjax predict {where} {shlex.quote(name)}"
    words = data.decode(data.train[:200]).split()
    first = next((word for word in words if word[0].isalnum()), None)
    return f"to use it: nnjax sample {where}" + (f" --prompt {shlex.quote(first)}" if first else "")


@dataclass
class Predict:
    """Predict classes and probabilities, or numbers, with a network for images or tables that `nnjax train --folder` saved."""

    run_folder: tyro.conf.Positional[Path]
    """The folder of the run."""
    data: tyro.conf.Positional[str]
    """An .npz file of raw examples x, with y if it is known; a table or a folder of images like those that were trained on; or
    digits, mnist, ..., for their test examples."""
    part: Literal["train", "validation", "test"] | None = None
    """Of a file that was trained on, use only this split, as training made it."""
    out: Path | None = None
    """Write all predictions to this .npz or .csv file."""
    best: bool = False
    """Use the checkpoint of the best validation (or test) accuracy, or R², not the newest."""

    def run(self) -> int:
        """Print the first rows, and the accuracy or R² if the targets are known; write the file."""
        self._expect_out()
        run = opened(self.run_folder, self.best)
        run.expect(CLASSES, NUMBERS)
        raw = load_rows(self.data, self.part, _known(run.record))
        found = run.predict(raw.x)
        if not np.shape(found.outputs)[1:]:  # of a single example
            found = type(found)(*(np.asarray(a)[None] for a in found))
        told = _of_numbers(found, raw, run.record) if isinstance(found, Numbers) else _of_classes(found, raw, run.record)
        n = len(found.outputs)
        if self.out is not None:
            with writing(self.out) as draft:
                (_write_npz if self.out.suffix.lower() == ".npz" else _write_csv)(draft, told)
        name = Path(self.data).name
        which = f"the {raw.part} examples of {name}" if raw.part else f"all of {name}"
        print(
            f"{run.record.network.kind} of {run.folder}, step {run.step}, on {which}: {n} {'example' if n == 1 else 'examples'}"
        )
        if raw.part is None and name == run.record.data:
            kind = "folder" if raw.files else "file"
            print(f"note: the run was trained on most of a {kind} {name}; --part test takes only what it has not seen")
        _show(told.screen)
        if n > SHOWN:
            print(f"... and {n - SHOWN} more" + (f", all in {self.out}" if self.out else "; --out FILE has all"))
        elif self.out is not None:
            print(f"written to {self.out}")
        if told.score:
            print(told.score)
        return 0

    def _expect_out(self) -> None:
        if self.out is None:
            return
        if self.out.suffix.lower() not in KINDS:
            raise ValueError(f"predict: --out must end in {' or '.join(KINDS)}, got {self.out}; name such a file.")
        expect_folder(self.out)
        if self.out.is_dir():
            raise ValueError(f"predict: --out {self.out} is a folder; name a file.")
        if self.out.exists() and os.path.exists(self.data) and os.path.samefile(self.out, self.data):
            raise ValueError(f"predict: --out {self.out} would overwrite the data; name another file.")


class Told(NamedTuple):
    """What is written to an .npz file, by name; the titled columns of a .csv file, whose first rows are shown on the
    screen; and a sentence about them, such as their accuracy, or ""."""

    arrays: dict[str, Any]
    table: dict[str, Any]
    screen: dict[str, list[str]]
    score: str


def _known(record: Record) -> Known:
    """What the data must be like."""
    rows, targets = record.rows, record.targets
    target = targets.names[0] if targets.names else None
    outputs = math.prod(targets.shape) if record.task == NUMBERS else 0
    return Known(rows.shape, rows.scale, rows.features, target, record.names, outputs)


def _rows(raw: Raw, n: int) -> dict[str, Any]:
    return {"file": raw.files} if raw.files else {"row": range(n)}


def _of_classes(found: Prediction, raw: Raw, record: Record) -> Told:
    names = record.names or tuple(map(str, range(record.classes)))
    classes, probabilities, _ = found
    arrays = {"classes": classes, "probabilities": probabilities}
    columns: dict[str, Any] = {**_rows(raw, len(classes)), "class": [names[c] for c in classes.tolist()]}
    likely = [f"{p[c]:.4f}" for c, p in zip(classes[:SHOWN].tolist(), probabilities)]
    each = {f"probability of {name}": probabilities[:, c] for c, name in enumerate(names)}
    labels, score = {}, ""
    if raw.y is not None:
        arrays["y"] = raw.y
        labels = {"label": [names[y] if 0 <= y < len(names) else str(y) for y in raw.y.tolist()]}
        right = int((classes == raw.y).sum())
        score = f"accuracy  {right / len(classes):.4f} ({right} of {len(classes)})" if len(classes) else ""
    screen = {name: [*map(str, column[:SHOWN])] for name, column in {**columns, "probability": likely, **labels}.items()}
    return Told(_with_files(arrays, raw), {**columns, **each, **labels}, screen, score)


def _of_numbers(found: Numbers, raw: Raw, record: Record) -> Told:
    n, targets = len(found.outputs), record.targets
    arrays = {"numbers": found.numbers}
    width = found.outputs.shape[1]
    columns = found.numbers.reshape(n, width)
    names = targets.names or (("y",) if width == 1 else tuple(f"y{i}" for i in range(width)))
    table: dict[str, Any] = _rows(raw, n) | {f"predicted {name}": columns[:, i] for i, name in enumerate(names)}
    screen = {name: [*map(str, column[:SHOWN])] for name, column in _rows(raw, n).items()}
    score = ""
    y = None
    if raw.y is not None:
        arrays["y"] = raw.y
        y = np.reshape(raw.y, (n, width))
        table |= {name: y[:, i] for i, name in enumerate(names)}
        value = r2(found, raw.y, targets)
        of = f"of {n}" if width == 1 else f"of {n}, mean of {width} targets"
        undefined = "R² is not defined: the targets are the same in every example" if n else ""
        score = f"R²  {value:.4f} ({of})" if value == value else undefined
    for i, name in enumerate(names[:WIDE]):
        screen[f"predicted {name}"] = [f"{p:.6g}" for p in columns[:SHOWN, i].tolist()]
        if y is not None:
            screen[name] = [f"{p:.6g}" for p in y[:SHOWN, i].tolist()]
    if width > WIDE:
        score = f"of {width} targets {WIDE} are shown; --out FILE has all\n{score}".rstrip()
    return Told(_with_files(arrays, raw), table, screen, score)


def _with_files(arrays: dict[str, Any], raw: Raw) -> dict[str, Any]:
    return arrays | ({"files": np.array(raw.files)} if raw.files else {})


def _show(columns: dict[str, list[str]]) -> None:
    """Print columns side by side, aligned to the right."""
    wide = [max(5, len(title), *map(len, column)) for title, column in columns.items()]
    for row in [columns, *zip(*columns.values())]:
        print("  ".join(word.rjust(width) for word, width in zip(row, wide)))


def _write_npz(draft: Path, told: Told) -> None:
    with draft.open("wb") as file:
        np.savez(file, **told.arrays)


def _write_csv(draft: Path, told: Told) -> None:
    with draft.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(told.table)
        rows.writerows([*map(str, row)] for row in zip(*told.table.values()))
