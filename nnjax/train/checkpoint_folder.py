"""Checkpoints as folders: which there are, whether each is as it was written, and how one takes the place of another."""

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

FORMAT = 1
UNFINISHED = ".saving-"  # begins the names of what is being written or removed: no checkpoint, and gone with the next save
REPLACED = ".replaced-"  # and of a checkpoint that another of its step is about to replace: it counts until that one is there


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, is damaged, or does not fit; the message says which, and the remedy."""


class Damaged(CheckpointError):
    """A checkpoint that is not as it was written."""


def steps(folder: str | Path) -> list[int]:
    """The steps of which there is a checkpoint, damaged or not, in order."""
    folder = Path(folder)
    names = {p.name.removeprefix(REPLACED) for p in folder.iterdir()} if folder.is_dir() else set()
    return sorted(int(name) for name in names if name.isdigit())


def place(folder: Path, step: int) -> Path:
    """Where the checkpoint of this step lies."""
    final = folder / f"{step:08d}"
    replaced = folder / f"{REPLACED}{final.name}"
    return replaced if replaced.exists() and not final.exists() else final


def seal(draft: Path, manifest: dict) -> None:
    """Write the manifest, with the SHA-256 of every file there is, and have all of it reach the disk."""
    manifest = {"format": FORMAT, **manifest, "files": {str(p.relative_to(draft)): _digest(p) for p in _files(draft)}}
    written = draft / "manifest.json"
    written.write_text(json.dumps(manifest, indent=1) + "\n")
    (draft / "manifest.sha256").write_text(_digest(written) + "\n")
    for path in [*_files(draft), *(p for p in draft.rglob("*") if p.is_dir()), draft]:
        _sync(path)


def verify(path: str | Path) -> dict:
    """The manifest of the checkpoint at this path. Raises CheckpointError unless every file is as it was written."""
    path = Path(path)
    try:
        written, digest = (path / name for name in ("manifest.json", "manifest.sha256"))
        if digest.read_bytes() != f"{_digest(written)}\n".encode():
            raise Damaged(f"{path} is damaged: manifest.json is not what was written")
        manifest = json.loads(written.read_text())
        if manifest["format"] != FORMAT:
            raise CheckpointError(
                f"{path} was saved by another version, in format {manifest['format']}; this one reads format {FORMAT}. "
                "Resume with the version that saved it."
            )
        there = {str(p.relative_to(path)): p for p in _files(path) if p.parent != path}
        for name in sorted({*manifest["files"], *there}):
            if name not in there or name not in manifest["files"]:
                raise Damaged(f"{path} is damaged: {name} is {'missing' if name not in there else 'not part of it'}")
            if _digest(there[name]) != manifest["files"][name]:
                raise Damaged(f"{path} is damaged: {name} is not what was written")
    except FileNotFoundError as error:
        raise Damaged(f"{path} is damaged: {Path(error.filename).name} is missing") from None
    return manifest


def take_place(draft: Path, final: Path) -> None:
    """Rename a sealed draft into its place; a checkpoint that is there counts until then."""
    replaced = final.with_name(f"{REPLACED}{final.name}")
    if final.exists():
        os.rename(final, replaced)
    os.rename(draft, final)
    _sync(final.parent)
    if replaced.exists():
        _remove(replaced)


def clear(folder: Path) -> None:
    """Remove what a process left that was killed while it saved."""
    for old in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(old, ignore_errors=True)
    for old in folder.glob(f"{REPLACED}*"):
        if (folder / old.name.removeprefix(REPLACED)).exists():
            _remove(old)


def prune(folder: Path, keep: int, best: str | None) -> None:
    """Remove all checkpoints but the newest `keep`, and the one whose metrics[best] is largest."""
    saved = steps(folder)
    stay = set(saved[-keep:])
    if best is not None:
        scores = {step: _score(place(folder, step), best) for step in saved}
        known = {step: score for step, score in scores.items() if score is not None}
        stay |= {max(known, key=lambda step: (known[step], -step))} if known else set()
    for step in set(saved) - stay:
        _remove(place(folder, step))


def _score(path: Path, name: str) -> float | None:
    try:
        score = json.loads((path / "manifest.json").read_text())["metrics"].get(name)
    except (OSError, ValueError, KeyError):
        return None
    return score if isinstance(score, (int, float)) and score == score else None


def _remove(path: Path) -> None:
    """At once by name, then file by file."""
    going = path.with_name(f"{UNFINISHED}{path.name}")
    with suppress(OSError):
        os.rename(path, going)
        shutil.rmtree(going)


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Have what was written reach the disk before what is written next."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
