"""`nnjax sample RUN`: text written by a trained network."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from ..errors import expect_positive
from .predict import opened


@dataclass
class Sample:
    """Write text with a character model that `nnjax train --folder` saved."""

    run_folder: tyro.conf.Positional[Path]
    """The folder of the run."""
    prompt: str | None = None
    """The text to continue; by default the start of a line."""
    length: int = 500
    """How many characters to write after it."""
    temperature: float = 0.8
    """Below 1 favours likely characters, above 1 unlikely ones; 0 always takes the most probable."""
    top_k: int | None = None
    """Draw only from this many of the most probable characters."""
    seed: int = 0
    """Seed of the random draws: another seed gives another text."""
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
