"""Checkpoints as folders: which exist, whether each is still as written, and how one replaces another."""

import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .watching.plain import plain

FORMAT = 1
UNFINISHED = ".saving-"  # prefix of what is being written or removed: not a checkpoint, and removed by the next save
REPLACED = ".replaced-"  # prefix of a checkpoint that is about to be replaced: it counts until the new one of its step is there
SET_ASIDE = ".no-checkpoint"  # suffix for what had the name of a checkpoint but was not one
PARTS: dict[str, type] = {"step": int, "leaves": list, "configuration": dict, "metrics": dict, "files": dict}  # of a manifest


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, is damaged, or does not fit; the message says which, and the remedy.

    See `load_run`.
    """


class Damaged(CheckpointError):
    """A checkpoint that has changed, cannot be read, or never was one: it is skipped."""


class NoneSound(CheckpointError):
    """There is no valid checkpoint; skipped: a sentence for each that was skipped."""

    def __init__(self, folder: Path, skipped: Sequence[str]):
        found = "; ".join(skipped) or "none was saved there"
        super().__init__(f"no valid checkpoint in {folder}: {found}. Start again in another folder.")
        self.skipped: tuple[str, ...] = tuple(skipped)


def steps(folder: str | Path) -> list[int]:
    """The steps that have a checkpoint, or something named like one, damaged or not, in order.

    Raises CheckpointError if the folder cannot be read.
    """
    folder = Path(folder)
    try:
        names = {p.name.removeprefix(REPLACED) for p in folder.iterdir()} if folder.is_dir() else set()
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}; choose another folder.") from None
    return sorted(int(name) for name in names if re.fullmatch(r"[0-9]{8}|[1-9][0-9]{8,}", name))


def place(folder: Path, step: int) -> Path:
    """The folder of the checkpoint of this step."""
    final = folder / f"{step:08d}"
    replaced = folder / f"{REPLACED}{final.name}"
    return replaced if os.path.lexists(replaced) and not os.path.lexists(final) else final


def seal(draft: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, with the SHA-256 of every file, and flush everything to disk."""
    manifest = {"format": FORMAT, **manifest, "files": {str(p.relative_to(draft)): _digest(p) for p in _files(draft)}}
    written = draft / "manifest.json"
    written.write_text(json.dumps(manifest, indent=1) + "\n")
    (draft / "manifest.sha256").write_text(_digest(written) + "\n")
    for path in [*_files(draft), *(p for p in draft.rglob("*") if p.is_dir()), draft]:
        _sync(path)


def manifest_of(path: str | Path) -> dict[str, Any]:
    """The manifest of the checkpoint at this path, as it was written. Raises Damaged, which says what is wrong."""
    path = Path(path)
    try:
        if not path.is_dir():
            raise Damaged(f"{path} is not a checkpoint: it is not a folder")
        written, digest = (path / name for name in ("manifest.json", "manifest.sha256"))
        content = written.read_bytes()
        if digest.read_bytes() != f"{hashlib.sha256(content).hexdigest()}\n".encode():
            raise Damaged(f"{path} is damaged: manifest.json has changed")
        manifest = json.loads(content)
    except FileNotFoundError as error:
        raise Damaged(f"{path} is damaged: {Path(error.filename).name} is missing") from None
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged(f"{path} is not a checkpoint: manifest.json is not JSON") from None
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise Damaged(f"{path} is not a checkpoint: manifest.json has other content")
    if manifest["format"] != FORMAT:
        raise Damaged(
            f"{path} was saved by another version, in format {manifest['format']}; this one reads format {FORMAT}; resume with "
            "that version"
        )
    for name, kind in PARTS.items():
        if not isinstance(manifest.get(name), kind):
            raise Damaged(f"{path} is not a checkpoint: manifest.json lacks {name}")
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
                raise Damaged(f"{path} is damaged: {name} has changed")
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {Path(error.filename or path).name}: {error.strerror or error}") from None
    return manifest


def take_place(draft: Path, final: Path) -> None:
    """Rename a sealed draft into its place. An older checkpoint there counts until then; anything else is moved aside."""
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
    """Remove what a process left behind that was killed while saving."""
    for old in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(old, ignore_errors=True)
    for old in folder.glob(f"{REPLACED}*"):
        if (folder / old.name.removeprefix(REPLACED)).exists():
            _remove(old)


def prune(folder: Path, keep: int, best: str | None, saved: int) -> None:
    """Remove all checkpoints but the newest `keep`, the one whose metrics[best] is largest, and that of the step `saved`.

    Anything that cannot be read as a checkpoint, or was written by another version, does not count and stays.
    """
    manifests = known(folder)
    stay = {*list(manifests)[-keep:], saved}
    scores = {step: score for step, m in manifests.items() if (score := _score(m["metrics"].get(best))) is not None}
    if best is not None and scores:
        stay.add(max(scores, key=lambda step: (scores[step], -step)))
    for step in manifests.keys() - stay:
        _remove(place(folder, step))


def known(folder: Path) -> dict[int, dict[str, Any]]:
    """The manifest of each step whose manifest can be read, in order."""
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
    """Rename it first, then remove it file by file."""
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
    """Flush it to disk before anything is written after it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def expect_same_run(path: Path, before: dict[str, Any], configuration: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless both runs have the same configuration. See `nnjax.train.restore`."""
    now, usual = json.loads(json.dumps([plain("restore: configuration", c) for c in (configuration, defaults)]))
    names = [name for name in dict.fromkeys((*before, *now)) if name in now or name not in usual]
    pairs = {name: (before.get(name, usual.get(name)), now.get(name)) for name in names}
    differ = [f"{name} was {a!r}, is {b!r}" for name, (a, b) in pairs.items() if a != b]
    if differ:
        raise CheckpointError(
            f"{path} is from a different run: {'; '.join(differ)}. Resume with the same options, or use another folder."
        )
