"""`nnjax reproduce`: published results, trained again with gradients written by hand."""

import importlib.util
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import tyro

from ..data.catalogue import load, load_images
from ..data.dataset import DataError
from ..data.text import Text
from ..reproduce.book import Stopped, chosen, reproduce, write_json
from ..reproduce.nanogpt import PUBLISHED, train_nanogpt
from ..reproduce.nanogpt_peer import train_by_torch
from ..reproduce.without_transpose import DIGITS, MNIST, compare
from ..train.watching.progress import epoch_line


@dataclass
class Reproduce:
    """Train published networks again, with gradients written by hand, and print the published figures beside ours.

    nielsen: the networks of Nielsen's book, chapters 1 to 6, on MNIST. nanogpt: nanoGPT's small configuration for CPUs on
    tiny Shakespeare. feedback: networks that carry the error back by something other than the transpose, on digits, and on
    MNIST if $NNJAX_DATA has it. After an interruption the same command continues.
    """

    what: tyro.conf.Positional[Literal["nielsen", "nanogpt", "feedback"]]
    """nielsen, nanogpt or feedback."""
    quick: bool = False
    """nielsen: only the fully connected rows, in a minute or two."""
    all: bool = False
    """nielsen: every row, also those on expanded data; hours on two cores. By default the rows up to ReLU."""
    only: str | None = None
    """nielsen: only the rows whose name contains this."""
    seeds: int = 1
    """Train each network this many times, from seeds 0, 1, ..."""
    curves: Path | None = None
    """nielsen: also draw our learning curves over the book's published ones, which this folder holds. By default
    $NNJAX_DATA/nielsen_curves, if it exists."""
    peers: bool = False
    """nanogpt: also train the same network in PyTorch (eager), to compare times."""
    folder: Path = Path("runs")
    """Folder for the saved runs."""
    results: Path = Path("notebooks/results")
    """Folder for the figures and pictures."""

    def run(self) -> int:
        """Train, print and write; return the exit code."""
        if not self.seeds > 0:
            raise ValueError(f"reproduce: seeds must be at least 1, got {self.seeds}; 1 to 3 are usual.")
        self.results.mkdir(parents=True, exist_ok=True)
        try:
            return {"nielsen": self._nielsen, "nanogpt": self._nanogpt, "feedback": self._feedback}[self.what]()
        except Stopped as stopped:
            name = str(stopped)
            print(f"stopped by {name} and saved; the same command continues")
            return 128 + signal.Signals[name]

    def _nielsen(self) -> int:
        rows = chosen(self.quick, self.all, self.only)
        curves = self.curves
        if curves is None and os.environ.get("NNJAX_DATA"):
            found = Path(os.environ["NNJAX_DATA"]) / "nielsen_curves"
            curves = found if found.is_dir() and self.only is None else None

        def say(line: str) -> None:
            print(line, flush=True)

        data = load_images("mnist")
        reproduce(data, rows, seeds=self.seeds, folder=self.folder / "nielsen", results=self.results, curves=curves, say=say)
        print(f"written to {self.results / 'nielsen.json'}")
        return 0

    def _feedback(self) -> int:
        file = self.results / "feedback.json"
        compare(DIGITS, load_images("digits"), self.seeds, file)
        try:
            mnist = load_images("mnist") if os.environ.get("NNJAX_DATA") else None
        except DataError:
            mnist = None
        if mnist is not None:
            compare(MNIST, mnist, self.seeds, file)
        print(f"written to {file}")
        return 0

    def _nanogpt(self) -> int:
        text = load("tiny_shakespeare")
        assert isinstance(text, Text)
        if self.peers and importlib.util.find_spec("torch") is None:
            raise ValueError("reproduce: --peers needs PyTorch, which is not installed; install it, or leave --peers out.")
        runs = []
        for seed in range(self.seeds):
            ours = train_nanogpt(text, seed, on_epoch=lambda r: print(" ", epoch_line(r, 8), flush=True))
            entry = {"seed": seed, "validation_loss": ours.validation_loss, "seconds": ours.seconds}
            line = f"seed {seed}: validation loss {ours.validation_loss:.4f} (published {PUBLISHED}), {ours.seconds:.1f} s"
            if self.peers:
                loss, seconds = train_by_torch(text, seed)
                entry |= {"torch_validation_loss": loss, "torch_seconds": seconds}
                line += f"; PyTorch eager: {loss:.4f}, {seconds:.1f} s: {ours.seconds / seconds:.2f} of its time"
            print(line)
            runs.append({**entry, "sample": ours.sample})
        print(runs[0]["sample"])
        head = {"jax": jax.__version__, "device": jax.devices()[0].device_kind, "cores": os.cpu_count(),
                "date": time.strftime("%Y-%m-%d"), "published": PUBLISHED}  # fmt: skip
        write_json(self.results / "nanogpt.json", {**head, "runs": runs})
        print(f"written to {self.results / 'nanogpt.json'}")
        return 0
