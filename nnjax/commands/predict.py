"""`nnjax predict RUN DATA`: classes and probabilities by a trained network."""

import csv
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from ..data.dataset import Dataset
from ..data.files import writing
from ..data.rows import load_rows
from ..data.text import Text
from ..errors import expect_folder
from ..train.trained.load import Trained, load_run
from ..train.trained.record import CLASSES

SHOWN = 10  # rows on the screen
KINDS = (".npz", ".csv")


def opened(folder: Path, best: bool) -> Trained:
    """The run, and a line on stderr for each damaged checkpoint that was passed over."""
    run = load_run(folder, best=best)
    for note in run.skipped:
        print(f"passed over: {note}", file=sys.stderr)
    return run


def usage(folder: Path, name: str, data: Dataset | Text) -> str:
    """The command that uses a run of the data of this name."""
    where = shlex.quote(str(folder))
    if isinstance(data, Dataset):
        return f"to use it: nnjax predict {where} {shlex.quote(name)}"
    words = data.decode(data.train[:200]).split()
    first = next((word for word in words if word[0].isalnum()), None)
    return f"to use it: nnjax sample {where}" + (f" --prompt {shlex.quote(first)}" if first else "")


@dataclass
class Predict:
    """Classes and probabilities, by a network of images or rows that `nnjax train --folder` saved."""

    run_folder: tyro.conf.Positional[Path]
    """The folder of the run."""
    data: tyro.conf.Positional[str]
    """An .npz file of raw examples x, and labels y if they are known; or digits, mnist, ...: their test examples."""
    part: Literal["train", "validation", "test"] | None = None
    """Of a file that was trained on, only these examples, as training split them."""
    out: Path | None = None
    """Write all classes and probabilities to this .npz or .csv file."""
    best: bool = False
    """Use the checkpoint of the best validation (or test) accuracy, not the newest."""

    def run(self) -> int:
        """Print the first rows, and the accuracy where labels are known; write the file."""
        self._expect_out()
        run = opened(self.run_folder, self.best)
        run.expect(CLASSES)
        raw = load_rows(self.data, self.part)
        found = run.predict(raw.x)
        names = run.record.names or tuple(map(str, range(run.record.classes)))
        classes, probabilities = np.atleast_1d(found.classes), np.atleast_2d(found.probabilities)
        if self.out is not None:
            columns = {"classes": classes, "probabilities": probabilities} | ({} if raw.y is None else {"y": raw.y})
            with writing(self.out) as draft:
                (_write_npz if self.out.suffix.lower() == ".npz" else _write_csv)(draft, columns, names)
        name = Path(self.data).name
        which = f"the {raw.part} examples of {name}" if raw.part else f"all of {name}"
        print(f"{run.record.network.kind} of {run.folder}, step {run.step}, on {which}: {len(classes)}")
        if raw.part is None and name == run.record.data:
            print(f"note: the run was trained on most of a file {name}; --part test takes what it has not seen")
        _show(classes, probabilities, raw.y, names)
        if len(classes) > SHOWN:
            print(f"... and {len(classes) - SHOWN} more" + (f", all in {self.out}" if self.out else "; --out FILE has all"))
        elif self.out is not None:
            print(f"written to {self.out}")
        if raw.y is not None and len(classes):
            right = int((classes == raw.y).sum())
            print(f"accuracy  {right / len(classes):.4f} ({right} of {len(classes)})")
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
            raise ValueError(f"predict: --out {self.out} would take the place of the data; name another file.")


def _show(classes: np.ndarray, probabilities: np.ndarray, y: Any, names: tuple[str, ...]) -> None:
    width = max(5, *(len(name) for name in names))
    print(f"{'row':>7}  {'class':>{width}}  probability" + ("" if y is None else f"  {'label':>{width}}"))
    for i, c in enumerate(classes[:SHOWN].tolist()):
        label = "" if y is None else f"  {_name(names, int(y[i])):>{width}}"
        print(f"{i:>7}  {names[c]:>{width}}  {probabilities[i, c]:>11.4f}{label}")


def _name(names: tuple[str, ...], label: int) -> str:
    return names[label] if 0 <= label < len(names) else str(label)


def _write_npz(draft: Path, columns: dict[str, Any], names: tuple[str, ...]) -> None:
    with draft.open("wb") as file:
        np.savez(file, **columns)


def _write_csv(draft: Path, columns: dict[str, Any], names: tuple[str, ...]) -> None:
    with draft.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        labels = [] if "y" not in columns else [_name(names, int(label)) for label in columns["y"]]
        rows.writerow(["row", "class", *(f"probability of {name}" for name in names), *(["label"] if labels else [])])
        for i, (c, p) in enumerate(zip(columns["classes"].tolist(), columns["probabilities"])):
            rows.writerow([i, names[c], *map(str, p), *labels[i : i + 1]])
