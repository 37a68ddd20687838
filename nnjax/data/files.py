"""New files and folders, with the mode that the umask sets; files are written whole or not at all."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import describe


def expect_path(who: str, path: Any) -> Path:
    """`path` as a Path. Raises TypeError for anything but a str or a path."""
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"{who}: a path must be a str or a pathlib.Path, got {describe(path)}; pass e.g. 'run/weights'.")
    return Path(path)


def new_file(folder: Path, prefix: str) -> Path:
    """A new, empty file with an unused name. Raises OSError if it cannot be made."""
    path = _unused(folder, prefix)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # tempfile would make it readable only by the owner
    return path


def new_folder(folder: Path, prefix: str) -> Path:
    """A new, empty folder with an unused name. Raises OSError if it cannot be made."""
    path = _unused(folder, prefix)
    path.mkdir()
    return path


def _unused(folder: Path, prefix: str) -> Path:
    return folder / f"{prefix}{secrets.token_hex(8)}"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file beside `path` to write to. At the end it replaces `path`; after an exception it is removed.

    Raises OSError if it cannot be made or renamed.
    """
    draft = new_file(path.parent, f".{path.name}-")
    mode = draft.stat().st_mode
    try:
        yield draft
        if draft.stat().st_mode != mode:  # some libraries replace it by their own file
            draft.chmod(stat.S_IMODE(mode))
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Like `replacing`, but the OSError says in a sentence which file, why, and the remedy."""
    try:
        with replacing(path) as draft:
            yield draft
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"{path} could not be written: {reason}; free space, or choose another place.") from error
