"""Checkpoints as folders: which there are, whether each is as it was written, and how one takes the place of another."""

import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

FORMAT = 1
UNFINISHED = ".saving-"  # begins the names of what is being written or removed: no checkpoint, and gone with the next save
REPLACED = ".replaced-"  # and of a checkpoint that another of its step is about to replace: it counts until that one is there
SET_ASIDE = ".no-checkpoint"  # ends the name of what stood in the place of a checkpoint, and was none
PARTS: dict[str, type] = {"step": int, "leaves": list, "configuration": dict, "metrics": dict, "files": dict}  # of a manifest


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, is damaged, or does not fit; the message says which, and the remedy.

    See `load_run`.
    """


class Damaged(CheckpointError):
    """A checkpoint that is not as it was written, cannot be read, or never was one: it is passed over."""


class NoneSound(CheckpointError):
    """There is no sound checkpoint; skipped: a sentence for each that was passed over."""

    def __init__(self, folder: Path, skipped: Sequence[str]):
        found = "; ".join(skipped) or "none was ever saved there"
        super().__init__(f"no sound checkpoint in {folder}: {found}. Start anew, in another folder.")
        self.skipped: tuple[str, ...] = tuple(skipped)


def steps(folder: str | Path) -> list[int]:
    """The steps of which there is a checkpoint, or what is named like one, damaged or not, in order.

    Raises CheckpointError where the folder cannot be read.
    """
    folder = Path(folder)
    try:
        names = {p.name.removeprefix(REPLACED) for p in folder.iterdir()} if folder.is_dir() else set()
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}; choose another folder.") from None
    return sorted(int(name) for name in names if re.fullmatch(r"[0-9]{8}|[1-9][0-9]{8,}", name))


def place(folder: Path, step: int) -> Path:
    """Where the checkpoint of this step lies."""
    final = folder / f"{step:08d}"
    replaced = folder / f"{REPLACED}{final.name}"
    return replaced if os.path.lexists(replaced) and not os.path.lexists(final) else final


def seal(draft: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, with the SHA-256 of every file there is, and have all of it reach the disk."""
    manifest = {"format": FORMAT, **manifest, "files": {str(p.relative_to(draft)): _digest(p) for p in _files(draft)}}
    written = draft / "manifest.json"
    written.write_text(json.dumps(manifest, indent=1) + "\n")
    (draft / "manifest.sha256").write_text(_digest(written) + "\n")
    for path in [*_files(draft), *(p for p in draft.rglob("*") if p.is_dir()), draft]:
        _sync(path)


def manifest_of(path: str | Path) -> dict[str, Any]:
    """The manifest of the checkpoint at this path, as it was written. Raises Damaged, with what is wrong."""
    path = Path(path)
    try:
        if not path.is_dir():
            raise Damaged(f"{path} is no checkpoint: it is no folder")
        written, digest = (path / name for name in ("manifest.json", "manifest.sha256"))
        content = written.read_bytes()
        if digest.read_bytes() != f"{hashlib.sha256(content).hexdigest()}\n".encode():
            raise Damaged(f"{path} is damaged: manifest.json is not what was written")
        manifest = json.loads(content)
    except FileNotFoundError as error:
        raise Damaged(f"{path} is damaged: {Path(error.filename).name} is missing") from None
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged(f"{path} is no checkpoint: manifest.json is no JSON") from None
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise Damaged(f"{path} is no checkpoint: manifest.json is of something else")
    if manifest["format"] != FORMAT:
        raise Damaged(
            f"{path} was saved by another version, in format {manifest['format']}; this one reads format {FORMAT}, and that "
            "version goes on from it"
        )
    for name, kind in PARTS.items():
        if not isinstance(manifest.get(name), kind):
            raise Damaged(f"{path} is no checkpoint: manifest.json lacks {name}")
    return manifest


def verify(path: str | Path) -> dict[str, Any]:
    """The manifest of the checkpoint at this path. Raises Damaged unless every file is as it was written."""
    path, manifest = Path(path), manifest_of(path)
    try:
        there = {str(p.relative_to(path)): p for p in _files(path) if p.parent != path}
        for name in sorted({*manifest["files"], *there}):
            if name not in there or name not in manifest["files"]:
                raise Damaged(f"{path} is damaged: {name} is {'missing' if name not in there else 'not part of it'}")
            if _digest(there[name]) != manifest["files"][name]:
                raise Damaged(f"{path} is damaged: {name} is not what was written")
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {Path(error.filename or path).name}: {error.strerror or error}") from None
    return manifest


def take_place(draft: Path, final: Path) -> None:
    """Rename a sealed draft into its place; a checkpoint that is there counts until then, and what is none is set aside."""
    replaced = final.with_name(f"{REPLACED}{final.name}")
    if os.path.lexists(final):
        ours = _known(final) and not final.is_symlink()
        os.rename(final, replaced if ours else _unused(final.with_name(f"{final.name}{SET_ASIDE}")))
    os.rename(draft, final)
    _sync(final.parent)
    if replaced.exists():
        _remove(replaced)


def _unused(path: Path) -> Path:
    names = (path.with_name(f"{path.name}{number or ''}") for number in itertools.count())
    return next(name for name in names if not os.path.lexists(name))


def clear(folder: Path) -> None:
    """Remove what a process left that was killed while it saved."""
    for old in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(old, ignore_errors=True)
    for old in folder.glob(f"{REPLACED}*"):
        if (folder / old.name.removeprefix(REPLACED)).exists():
            _remove(old)


def prune(folder: Path, keep: int, best: str | None, saved: int) -> None:
    """Remove all checkpoints but the newest `keep`, the one whose metrics[best] is largest, and that of the step `saved`.

    What cannot be read as one, or was written by another version, is not counted and left where it is.
    """
    manifests = known(folder)
    stay = {*list(manifests)[-keep:], saved}
    scores = {step: score for step, m in manifests.items() if (score := _score(m["metrics"].get(best))) is not None}
    if best is not None and scores:
        stay.add(max(scores, key=lambda step: (scores[step], -step)))
    for step in manifests.keys() - stay:
        _remove(place(folder, step))


def known(folder: Path) -> dict[int, dict[str, Any]]:
    """The manifest of each step whose checkpoint has one that can be read, in order."""
    found = {step: _known(place(folder, step)) for step in steps(folder)}
    return {step: manifest for step, manifest in found.items() if manifest is not None}


def _known(path: Path) -> dict[str, Any] | None:
    try:
        return manifest_of(path)
    except Damaged:
        return None


def _score(score: object) -> float | None:
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
