"""`nnjax sample RUN`: text by a trained network."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from ..errors import expect_positive
from .predict import opened


@dataclass
class Sample:
    """Write on, by a network of text that `nnjax train --folder` saved."""

    run_folder: tyro.conf.Positional[Path]
    """The folder of the run."""
    prompt: str | None = None
    """What the text begins with; by default the beginning of a line."""
    length: int = 500
    """Characters to write after it."""
    temperature: float = 0.8
    """Below 1 likely characters are taken more often, above 1 unlikely ones; 0 takes the most probable."""
    top_k: int | None = None
    """Draw from so many most probable characters alone."""
    seed: int = 0
    """Another number draws another text."""
    best: bool = False
    """Use the checkpoint of the best validation accuracy, not the newest."""

    def run(self) -> int:
        """Print the prompt, and each character as it is made."""
        expect_positive("sample", length=self.length)
        run = opened(self.run_folder, self.best)
        made = run.stream(self.prompt, self.length, temperature=self.temperature, top_k=self.top_k, seed=self.seed)
        print(self.prompt or "", end="", flush=True)
        for character in made:
            print(character, end="", flush=True)
        print()
        return 0
