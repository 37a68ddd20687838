"""What a run came to, an epoch a line, as JSON: `metrics.jsonl`."""

import json
import os
from pathlib import Path

from .fit import Epoch


def log(path: Path, record: Epoch, examples: int) -> None:
    """Put this epoch into the file, in one rename; later epochs, of a run that has gone back to a checkpoint, are dropped.

    Seconds are those of the steps; examples: how many were trained on.
    """
    lines = (
        [line for line in path.read_text().splitlines() if json.loads(line)["epoch"] < record.epoch] if path.exists() else []
    )
    speed = examples / record.seconds if record.seconds > 0 else float("nan")
    fields = {**record._asdict(), "examples_per_second": speed}
    lines.append(json.dumps({name: value if value == value else None for name, value in fields.items()}))
    draft = path.with_name(f".{path.name}")
    draft.write_text("\n".join(lines) + "\n")
    os.replace(draft, path)
