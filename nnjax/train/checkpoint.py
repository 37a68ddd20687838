"""Checkpoints: whole or absent, every byte accounted for, and refused by name where they do not fit.

FOLDER/00000120/state/          the arrays, written by orbax-checkpoint
FOLDER/00000120/manifest.json   what they are, and the SHA-256 of every file under state/
FOLDER/00000120/manifest.sha256 that of manifest.json

A checkpoint is written beside its place and renamed into it, and one that goes is renamed before it is removed, so that a
process killed at any moment leaves those of other steps whole and either all or nothing of the new one.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..errors import expect_positive

FORMAT = 1
UNFINISHED = ".saving-"  # begins the names of what is being written or removed: no checkpoint, and gone with the next save
REPLACED = ".replaced-"  # and of a checkpoint that another of its step is about to replace: it counts until that one is there


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, is damaged, or does not fit; the message says which, and the remedy."""


class Restored(NamedTuple):
    """state: like the one asked for; step, configuration, metrics: as saved; skipped: a sentence for each damaged newer one."""

    state: Any
    step: int
    configuration: dict
    metrics: dict
    skipped: tuple[str, ...]


def save(
    folder: str | Path, state: Any, *, step: int, configuration: Mapping | None = None, metrics: Mapping | None = None,
    keep: int = 3, best: str | None = None,
) -> Path:  # fmt: skip
    """Write every array of `state`, a pytree, as the checkpoint of this step, and return its folder.

    configuration: what a resumed run must share; metrics: whatever else should be remembered; both as JSON.  Of all
    checkpoints the newest `keep` stay, and the one whose metrics[best] is largest.
    Raises CheckpointError where it cannot be written: what was there before is left whole.
    """
    expect_positive("save", keep=keep)
    folder = Path(folder)
    final = folder / f"{step:08d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clear(folder)
        draft = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
        try:
            _write(draft, state, step, configuration, metrics)
            replaced = folder / f"{REPLACED}{final.name}"
            if final.exists():
                os.rename(final, replaced)
            os.rename(draft, final)
            _sync(folder)
            if replaced.exists():
                _remove(replaced)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except CheckpointError:
        raise
    except Exception as error:  # orbax has errors of many kinds for a full disk
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        newest = max(steps(folder), default=None)
        left = "there is no earlier one" if newest is None else f"that of step {newest} is whole"
        raise CheckpointError(
            f"checkpoint of step {step} could not be saved in {folder}: {reason}; {left}. Free space or choose another folder."
        ) from error
    _prune(folder, keep, best)
    return final


def _write(draft: Path, state: Any, step: int, configuration, metrics) -> None:
    leaves = _leaves(state)
    arrays = {number: _data(x) for number, _, x in leaves if x.size}
    if arrays:
        with _quietly():
            _orbax().save(draft / "state", arrays)
    manifest = {
        "format": FORMAT,
        "step": step,
        "leaves": [_described(name, x) for _, name, x in leaves],
        "configuration": dict(configuration or {}),
        "metrics": dict(metrics or {}),
        "files": {str(p.relative_to(draft)): _digest(p) for p in _files(draft)},
    }
    written = draft / "manifest.json"
    written.write_text(json.dumps(manifest, indent=1) + "\n")
    (draft / "manifest.sha256").write_text(_digest(written) + "\n")
    for path in [*_files(draft), *(p for p in draft.rglob("*") if p.is_dir()), draft]:
        _sync(path)


def steps(folder: str | Path) -> list[int]:
    """The steps of which there is a checkpoint, damaged or not, in order."""
    folder = Path(folder)
    names = {p.name.removeprefix(REPLACED) for p in folder.iterdir()} if folder.is_dir() else set()
    return sorted(int(name) for name in names if name.isdigit())


def _at(folder: Path, step: int) -> Path:
    final = folder / f"{step:08d}"
    replaced = folder / f"{REPLACED}{final.name}"
    return replaced if replaced.exists() and not final.exists() else final


def restore(folder: str | Path, like: Any, *, configuration: Mapping | None = None) -> Restored:
    """The newest sound checkpoint, as a state of the structure, shapes, dtypes and devices of `like`.

    A damaged one is passed over, and named in `skipped`.  Raises CheckpointError where there is no sound one, where it is of
    another version, and where its arrays or `configuration`, if given, are not those of this run: it says what differs.
    """
    folder, skipped = Path(folder), []
    for step in reversed(steps(folder)):
        path = _at(folder, step)
        try:
            manifest = verify(path)
            _expect_fit(path, manifest, like, configuration)
            return Restored(_read(path, like), step, manifest["configuration"], manifest["metrics"], tuple(skipped))
        except _Damaged as error:
            skipped.append(str(error))
    found = "; ".join(skipped) or "none was ever saved there"
    raise CheckpointError(f"no sound checkpoint in {folder}: {found}. Start anew, in another folder.")


class _Damaged(CheckpointError):
    pass


def verify(path: str | Path) -> dict:
    """The manifest of the checkpoint at this path. Raises CheckpointError unless every file is as it was written."""
    path = Path(path)
    try:
        written, digest = (path / name for name in ("manifest.json", "manifest.sha256"))
        if digest.read_bytes() != f"{_digest(written)}\n".encode():
            raise _Damaged(f"{path} is damaged: manifest.json is not what was written")
        manifest = json.loads(written.read_text())
        if manifest["format"] != FORMAT:
            raise CheckpointError(
                f"{path} was saved by another version, in format {manifest['format']}; this one reads format {FORMAT}. "
                "Resume with the version that saved it."
            )
        there = {str(p.relative_to(path)): p for p in _files(path) if p.parent != path}
        for name in sorted({*manifest["files"], *there}):
            if name not in there or name not in manifest["files"]:
                raise _Damaged(f"{path} is damaged: {name} is {'missing' if name not in there else 'not part of it'}")
            if _digest(there[name]) != manifest["files"][name]:
                raise _Damaged(f"{path} is damaged: {name} is not what was written")
    except FileNotFoundError as error:
        raise _Damaged(f"{path} is damaged: {Path(error.filename).name} is missing") from None
    return manifest


def _expect_fit(path: Path, manifest: dict, like: Any, configuration: Mapping | None) -> None:
    if configuration is not None:
        now = json.loads(json.dumps(dict(configuration)))
        before = manifest["configuration"]
        differ = [
            f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
            for name in dict.fromkeys((*before, *now))
            if before.get(name) != now.get(name)
        ]
        if differ:
            raise CheckpointError(
                f"{path} is of another run: {'; '.join(differ)}. Resume with the same, or start in another folder."
            )
    saved, wanted = manifest["leaves"], [_described(name, x) for _, name, x in _leaves(like)]
    if saved != wanted:
        pairs = {leaf["name"]: [leaf, None] for leaf in saved}
        for leaf in wanted:
            pairs.setdefault(leaf["name"], [None, None])[1] = leaf
        name, (before, now) = next((n, p) for n, p in pairs.items() if p[0] != p[1])
        raise CheckpointError(
            f"{path} does not fit this run: {name} was {_words(before)}, is {_words(now)}. Resume with the model and the "
            "optimizer that it was saved with."
        )


def _read(path: Path, like: Any) -> Any:
    numbered = _leaves(like)
    wanted = {
        number: jax.ShapeDtypeStruct(_data(x).shape, _data(x).dtype, sharding=getattr(_data(x), "sharding", None))
        for number, _, x in numbered
        if x.size
    }
    found = _orbax().load(path / "state", wanted) if wanted else {}
    read = []
    for number, _, x in numbered:
        data = found[number] if x.size else x
        read.append(jax.random.wrap_key_data(data, impl=str(jax.random.key_impl(x))) if x.size and _is_key(x) else data)
    return jax.tree.unflatten(jax.tree.structure(like), read)


def _leaves(state: Any) -> list[tuple[str, str, Any]]:
    """(number, name, array) of every leaf."""
    paths = jax.tree_util.tree_leaves_with_path(state)
    arrays = [x if hasattr(x, "dtype") else jnp.asarray(x) for _, x in paths]
    return [(f"{i:05d}", jax.tree_util.keystr(path).lstrip("."), x) for i, ((path, _), x) in enumerate(zip(paths, arrays))]


def _is_key(x) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _data(x):
    return jax.random.key_data(x) if _is_key(x) else x


def _described(name: str, x) -> dict:
    return {"name": name, "shape": list(x.shape), "dtype": str(x.dtype)}


def _words(leaf: dict | None) -> str:
    return "absent" if leaf is None else f"{leaf['dtype']} {tuple(leaf['shape'])}"


def _orbax() -> Any:
    try:
        from orbax.checkpoint import v1
    except ImportError:
        raise CheckpointError("checkpoints need the train extra: python -m pip install 'nnjax[train]'.") from None
    return v1


@contextmanager
def _quietly() -> Iterator[None]:
    """Of a save that fails orbax's threads print pages of tracebacks beside the error that it raises: the error suffices."""
    logger, hook = logging.getLogger("absl"), threading.excepthook
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    threading.excepthook = lambda args: None
    try:
        yield
    finally:
        logger.setLevel(level)
        threading.excepthook = hook


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


def _prune(folder: Path, keep: int, best: str | None) -> None:
    saved = steps(folder)
    stay = set(saved[-keep:])
    if best is not None:
        scores = {step: _score(_at(folder, step), best) for step in saved}
        known = {step: score for step, score in scores.items() if score is not None}
        stay |= {max(known, key=lambda step: (known[step], -step))} if known else set()
    for step in set(saved) - stay:
        _remove(_at(folder, step))


def _remove(path: Path) -> None:
    """At once by name, then file by file."""
    going = path.with_name(f"{UNFINISHED}{path.name}")
    with suppress(OSError):
        os.rename(path, going)
        shutil.rmtree(going)


def _clear(folder: Path) -> None:
    """Remove what a process left that was killed while it saved."""
    for old in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(old, ignore_errors=True)
    for old in folder.glob(f"{REPLACED}*"):
        if (folder / old.name.removeprefix(REPLACED)).exists():
            _remove(old)


def _score(path: Path, name: str) -> float | None:
    try:
        score = json.loads((path / "manifest.json").read_text())["metrics"].get(name)
    except (OSError, ValueError, KeyError):
        return None
    return score if isinstance(score, (int, float)) and score == score else None
