"""Checkpoints: whole or absent, every byte verified, and refused with a reason where they do not fit.

FOLDER/00000120/state/          the arrays, written by orbax-checkpoint
FOLDER/00000120/manifest.json   what they are, and the SHA-256 of every file under state/
FOLDER/00000120/manifest.sha256 the SHA-256 of manifest.json

A checkpoint is written beside its place and then renamed. An old one is renamed before it is removed. So a process that is
killed at any moment leaves the checkpoints of other steps whole, and either all or nothing of the new one.
"""

import logging
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..data.files import expect_path, new_folder
from ..errors import describe, expect_positive, whole_number
from .checkpoint_folder import (
    UNFINISHED,
    CheckpointError,
    Damaged,
    NoneSound,
    clear,
    expect_same_run,
    known,
    place,
    prune,
    seal,
    steps,
    take_place,
    verify,
)
from .processes import by_first
from .watching.plain import plain


class Restored(NamedTuple):
    """state: like the one given; step, configuration, metrics: as saved; skipped: a sentence for each newer, damaged one.
    See `save`."""

    state: Any
    step: int
    configuration: dict[str, Any]
    metrics: dict[str, Any]
    skipped: tuple[str, ...]


def save(
    folder: str | Path, state: Any, *, step: int, configuration: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None, keep: int = 3, best: str | None = None,
) -> Path:  # fmt: skip
    """Write every array of `state`, a pytree, as the checkpoint of this step, and return its folder.

    configuration: what a resumed run must share; metrics: anything else to remember. Both are saved as JSON; they may hold
    numbers of NumPy and JAX, and paths.  Kept are the newest `keep` checkpoints, this one, and the one whose metrics[best] is
    largest.
    In a run of several processes all call it, with a folder that all can see; each writes what its own devices hold.
    Raises CheckpointError if it cannot be written (earlier checkpoints stay whole), ValueError or TypeError for an invalid
    step or entry.

    >>> folder = nnjax.train.save("run", {"w": jnp.ones(3)}, step=2)
    >>> assert nnjax.train.restore("run", {"w": jnp.zeros(3)}).step == 2
    """
    (keep,) = expect_positive("save", keep=keep)
    step = _step(step)
    if best is not None and not isinstance(best, str):
        raise TypeError(f"save: best must be the name of one of the metrics, got {describe(best)}; pass e.g. 'accuracy'.")
    configuration, metrics = _json("configuration", configuration), _json("metrics", metrics)
    folder = expect_path("save", folder)
    final = folder / f"{step:08d}"
    draft = Path(by_first(lambda: _begun(folder, step), CheckpointError))
    try:
        with _told(folder, step):
            leaves = _leaves(state)
            arrays = {number: _data(x) for number, _, x in leaves if x.size}
            if arrays:
                with _quietly():
                    _orbax().save((draft / "state").absolute(), arrays)
        manifest = {
            "step": step,
            "leaves": [_described(name, x) for _, name, x in leaves],
            "configuration": configuration,
            "metrics": metrics,
        }
        by_first(lambda: _ended(draft, final, step, manifest), CheckpointError)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    by_first(lambda: prune(folder, keep, best, step), CheckpointError)
    return final


def _step(step: Any) -> int:
    found = whole_number(step)
    if found is None or found < 0:
        came = repr(step) if isinstance(step, (int, float, str)) else describe(step)
        raise ValueError(f"save: step must be a whole number of at least 0, got {came}; pass the number of steps taken.")
    return found


def _json(name: str, given: Any) -> dict[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"save: {name} must be a dictionary, got {describe(given)}; pass names with their values.")
    return plain(f"save: {name}", given or {})


def _begun(folder: Path, step: int) -> str:
    with _told(folder, step):
        folder.mkdir(parents=True, exist_ok=True)
        clear(folder)
        return str(new_folder(folder, UNFINISHED))


def _ended(draft: Path, final: Path, step: int, manifest: dict[str, Any]) -> None:
    with _told(final.parent, step):
        seal(draft, manifest)
        take_place(draft, final)


@contextmanager
def _told(folder: Path, step: int) -> Iterator[None]:
    """Turn any failure into a CheckpointError that says which checkpoint is left."""
    try:
        yield
    except (CheckpointError, jax.errors.JaxRuntimeError):  # the latter: another process has died
        raise
    except Exception as error:  # orbax raises many kinds of errors for a full disk
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if jax.process_count() > 1 and "barrier" in reason.lower():  # where orbax waits for another process
            raise jax.errors.JaxRuntimeError(reason.split(". ")[0]) from error
        newest = max(_saved(folder), default=None)
        left = "there is no earlier one" if newest is None else f"the one of step {newest} is whole"
        raise CheckpointError(
            f"the checkpoint of step {step} could not be saved in {folder}: {reason}; {left}. Free space or use another folder."
        ) from error


def _saved(folder: Path) -> list[int]:
    try:
        return list(known(folder))
    except CheckpointError:  # the folder itself cannot be read
        return []


def restore(
    folder: str | Path, like: Any, *, configuration: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Restored:  # fmt: skip
    """The newest valid checkpoint, as a state with the structure, shapes, dtypes and devices of `like`.

    Checkpoints that are damaged, unreadable or of another version are skipped, and named in `skipped`.  Raises
    CheckpointError if none is valid, or if its arrays or its configuration, if given, are not those of this run: the message
    says what differs.
    defaults: options that the program has now. One that the saved configuration lacks had its default; one that the given
    configuration lacks does not matter to this run, whatever was saved. So programs may get new options. See `save`.
    """
    folder = expect_path("restore", folder)
    for name, given in (("configuration", configuration), ("defaults", defaults)):
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(
                f"restore: {name} must be a dictionary, got {describe(given)}; pass values by name, as they were given to save."
            )
    step, manifest, skipped = expect_fit(folder, like, configuration=configuration, defaults=defaults)
    state = _read(place(folder, step), like)
    return Restored(state, step, manifest["configuration"], manifest["metrics"], tuple(skipped))


def expect_fit(
    folder: str | Path, like: Any, *, configuration: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> tuple[int, dict[str, Any], list[str]]:  # fmt: skip
    """Raise what `restore` would, without reading arrays. Returns the step, its manifest, and a sentence for each skipped."""
    step, manifest, skipped = by_first(lambda: _newest(Path(folder), like, configuration, defaults or {}), CheckpointError)
    if step is None or manifest is None:
        raise NoneSound(Path(folder), skipped)
    return step, manifest, skipped


def _newest(
    folder: Path, like: Any, configuration: Mapping[str, Any] | None, defaults: Mapping[str, Any]
) -> tuple[int | None, dict[str, Any] | None, list[str]]:
    """The step of the newest valid checkpoint, if any, its manifest, and a sentence for each newer one that is not valid."""
    skipped = []
    for step in reversed(steps(folder)):
        path = place(folder, step)
        try:
            manifest = verify(path)
            if configuration is not None:
                expect_same_run(path, manifest["configuration"], configuration, defaults)
            _expect_fit(path, manifest, like)
            return step, manifest, skipped
        except Damaged as error:
            skipped.append(str(error))
    return None, None, skipped


def _expect_fit(path: Path, manifest: dict[str, Any], like: Any) -> None:
    saved, wanted = manifest["leaves"], [_described(name, x) for _, name, x in _leaves(like)]
    if saved != wanted:
        pairs = {leaf["name"]: [leaf, None] for leaf in saved}
        for leaf in wanted:
            pairs.setdefault(leaf["name"], [None, None])[1] = leaf
        name, (before, now) = next((n, p) for n, p in pairs.items() if p[0] != p[1])
        raise CheckpointError(
            f"{path} does not fit this run: {name} was {_words(before)}, is {_words(now)}. Resume with the model "
            "and the optimizer that it was saved with."
        )


def _read(path: Path, like: Any) -> Any:
    numbered = _leaves(like)
    wanted = {
        number: jax.ShapeDtypeStruct(_data(x).shape, _data(x).dtype, sharding=getattr(_data(x), "sharding", None))
        for number, _, x in numbered
        if x.size
    }
    found = read_arrays(path, wanted)
    read = []
    for number, _, x in numbered:
        data = found[number] if x.size else x
        read.append(jax.random.wrap_key_data(data, impl=str(jax.random.key_impl(x))) if x.size and _is_key(x) else data)
    return jax.tree.unflatten(jax.tree.structure(like), read)


def read_arrays(path: Path, wanted: Mapping[str, jax.ShapeDtypeStruct]) -> Mapping[str, jax.Array]:
    """The wanted arrays of a checkpoint, by number. Raises CheckpointError if they cannot be read."""
    if not wanted:
        return {}
    orbax = _orbax()
    context = orbax.Context()
    context.pytree.loading.partial_load = True
    try:
        with context:
            return orbax.load((path / "state").absolute(), dict(wanted))
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} cannot be read: {reason}; try again, or start in another folder.") from error


def _leaves(state: Any) -> list[tuple[str, str, Any]]:
    """(number, name, array) of every leaf."""
    paths = jax.tree_util.tree_leaves_with_path(state)
    arrays = [x if hasattr(x, "dtype") else jnp.asarray(x) for _, x in paths]
    return [(f"{i:05d}", jax.tree_util.keystr(path).lstrip("."), x) for i, ((path, _), x) in enumerate(zip(paths, arrays))]


def _is_key(x) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _data(x):
    return jax.random.key_data(x) if _is_key(x) else x


def _described(name: str, x) -> dict[str, Any]:
    return {"name": name, "shape": list(x.shape), "dtype": str(x.dtype)}


def _words(leaf: dict[str, Any] | None) -> str:
    return "absent" if leaf is None else f"{leaf['dtype']} {tuple(leaf['shape'])}"


def _orbax() -> Any:
    try:
        from orbax.checkpoint import v1
    except ImportError:
        raise CheckpointError("checkpoints need the train extra: python -m pip install 'nnjax[train]'.") from None
    return v1


@contextmanager
def _quietly(seconds: float = 5.0) -> Iterator[None]:
    """Silence the threads of orbax: when a save fails they print pages of tracebacks besides the error.

    Some are still writing when the error is raised, and fail only later: wait for them, at most this many seconds.
    """
    logger, hook = logging.getLogger("absl"), threading.excepthook
    level, before = logger.level, set(threading.enumerate())
    logger.setLevel(logging.CRITICAL)
    threading.excepthook = lambda args: None
    try:
        yield
    except BaseException:
        end = time.monotonic() + seconds
        for thread in set(threading.enumerate()) - before:
            if type(thread).__module__.startswith("orbax."):
                threading.Thread.join(thread, max(0.0, end - time.monotonic()))  # orbax's join would raise its error
        raise
    finally:
        logger.setLevel(level)
        threading.excepthook = hook
