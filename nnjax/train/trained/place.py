"""Find a run from the path that a person names: its folder, something inside it, or the folder that contains it."""

import os
from pathlib import Path
from typing import NamedTuple

from ...data.files import expect_path
from ..checkpoint_folder import CheckpointError
from .record import FILE

SAVED = "checkpoints"  # a folder inside that of a run
UP = 4  # levels above the path to search: enough for files inside a checkpoint
SHOWN = 8  # runs that an error lists


class Place(NamedTuple):
    """The folder of a run; step: of the checkpoint that was named, or None."""

    folder: Path
    step: int | None = None


def found_place(who: str, path: str | Path) -> Place:
    """The run at this path: its folder, anything in it, or a folder that holds exactly one run.

    Raises CheckpointError, which says what is there, if the path leads to no run or to several.
    """
    path = expect_path(who, path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; name the folder that was given to `nnjax train --folder`.")
    try:
        return _found(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None


def _found(path: Path) -> Place:
    if (path / FILE).is_file():
        return Place(path)
    inside = sorted(p for p in path.iterdir()) if path.is_dir() else []
    runs = [p for p in inside if (p / FILE).is_file()]
    if len(runs) == 1:
        return Place(runs[0])
    if runs:
        names = ", ".join(str(p) for p in runs[:SHOWN]) + (f" and {len(runs) - SHOWN} more" if len(runs) > SHOWN else "")
        raise CheckpointError(f"{path} holds several runs: {names}; name one of them.")
    whole = Path(os.path.abspath(path))
    for above in whole.parents[:UP]:
        within = whole.relative_to(above).parts
        if (above / FILE).is_file():
            named = within[1] if within[0] == SAVED and len(within) > 1 else ""
            return Place(above, int(named) if named.isdecimal() else None)
    folder = path.parent if path.name == SAVED else path
    if (folder / SAVED).is_dir():
        raise CheckpointError(
            f"{folder} has checkpoints, but no {FILE}: they are not from `nnjax train` of this version. Repeat its command "
            "with --resume, which writes the file; for a run of train.fit, use train.restore."
        )
    what = "a file" if path.is_file() else "empty" if not inside else f"a folder of {inside[0].name} and such"
    raise CheckpointError(f"{path} is not a run, but {what}; name the folder that was given to `nnjax train --folder`.")
