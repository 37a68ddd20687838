"""A run: its record, where it is saved, and where it stands when it starts or resumes."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ..data.files import new_folder
from .checkpoint import expect_fit, restore, save
from .checkpoint_folder import UNFINISHED, CheckpointError, NoneSound, steps
from .processes import by_first, gathered
from .step import TrainState
from .stopping import stoppable


class Epoch(NamedTuple):
    """The result of an epoch. Accuracies are shares of 1 (NaN for an empty split, or targets that are not classes); seconds
    do not include the evaluation.

    measured: other measurements, by name; for targets that are numbers also R², "validation_r2" and "test_r2".
    See `fit`.
    """

    epoch: int
    loss: float
    validation_accuracy: float
    test_accuracy: float
    seconds: float
    measured: Mapping[str, float] = {}

    @property
    def score(self) -> float:
        """What the best epoch maximises: validation accuracy or R², or those of the test split if no examples are held out."""
        r2 = [self.measured.get(name, float("nan")) for name in ("validation_r2", "test_r2")]
        known = (self.validation_accuracy, r2[0], self.test_accuracy, r2[1])
        return next((x for x in known if x == x), float("nan"))


OnEpoch = Callable[[Epoch], object]
OnSteps = Callable[[int, float], object]  # (steps taken, mean loss of the last ones, NaN at the start)


class Fit(NamedTuple):
    """The last state, a record of every epoch, and why the run ended early: a signal's name, "patience", or "". See `fit`."""

    state: TrainState
    history: tuple[Epoch, ...]
    stopped: str = ""


class Checkpoints(NamedTuple):
    """Where a run is saved.  every: after how many steps, or each epoch; keep: how many of the newest stay, besides the one
    with the best validation (or test) accuracy; configuration: what a resumed run must share; resume: start from the newest
    valid checkpoint, or from the beginning if there is none; on_note: called with notes on damaged checkpoints and on where
    the run starts; claimed: the caller holds the folder (see `claim`); on_history: called with the records of the epochs
    before the one where the run resumes; defaults: see `restore`. See `save`.
    """

    folder: str | Path
    every: int | None = None
    keep: int = 3
    configuration: Mapping[str, Any] = {}
    resume: bool = False
    on_note: Callable[[str], None] | None = None
    claimed: bool = False
    on_history: Callable[[tuple[Epoch, ...]], object] | None = None
    defaults: Mapping[str, Any] = {}


class Progress(NamedTuple):
    """The progress of a run: its records; the sum of the losses and the seconds of the current epoch; the very first loss."""

    history: tuple[Epoch, ...] = ()
    loss: float = 0.0
    seconds: float = 0.0
    first: float | None = None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Raise CheckpointError if another run holds this folder; until this run ends or dies, others are refused."""
    held: list[Callable[[], None]] = []
    by_first(lambda: held.append(_lock(folder)), CheckpointError)
    try:
        expect_shared(folder)
        yield
    finally:
        for release in held:
            release()


def _lock(folder: Path) -> Callable[[], None]:
    """Lock the folder, and return a function that releases it and removes the folders made for it if they are empty."""
    try:
        import filelock
    except ImportError:
        raise CheckpointError("checkpoints need the train extra: python -m pip install 'nnjax[train]'.") from None
    file = folder / ".lock"
    try:
        made = [p for p in (folder, *folder.parents) if not p.exists()]
        new = not file.exists()
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(file, timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise CheckpointError(f"{folder} is in use by another run; wait until it ends, or choose another folder.") from None
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written to: {error}; choose another folder.") from None

    def release() -> None:
        with suppress(OSError):
            if new and [p.name for p in folder.iterdir()] == [file.name]:
                file.unlink()  # while the lock is held: a later run makes a new file
        lock.release()
        with suppress(OSError):
            for path in made:
                path.rmdir()

    return release


def expect_shared(folder: Path, seconds: float = 5.0) -> None:
    """Raise CheckpointError, in every process, unless all see within this time what the first writes into the folder."""
    if jax.process_count() == 1:
        return
    made = folder / by_first(lambda: new_folder(folder, UNFINISHED).name, OSError)
    end = time.monotonic() + seconds  # a network disk may be slow
    while not made.is_dir() and time.monotonic() < end:
        time.sleep(0.1)
    sees = gathered(made.is_dir())
    by_first(made.rmdir, OSError)
    if not all(sees):
        raise CheckpointError(
            f"{folder} must be one folder for all processes, but process {sees.index(False)} does not see what process 0 "
            "writes there; choose one on a disk that all share."
        )


@contextmanager
def claim(checkpoints: Checkpoints | None) -> Iterator[Checkpoints | None]:
    """Lock the folder of these checkpoints from here on, before anything is read, written or compiled.

    Raises CheckpointError if another run holds the folder, or if it has checkpoints and the run does not resume.
    """
    if checkpoints is None or checkpoints.claimed:
        yield checkpoints
        return
    with alone(Path(checkpoints.folder)):
        expect_room(checkpoints)
        yield checkpoints._replace(claimed=True)


@contextmanager
def held(checkpoints: Checkpoints | None) -> Iterator[Callable[[], str]]:
    """Lock the folder, and give what `stoppable` gives; without checkpoints signals end the run as usual.

    A signal to one of several processes counts for all.
    """
    if checkpoints is None:
        yield lambda: ""
        return
    with nullcontext() if checkpoints.claimed else alone(Path(checkpoints.folder)), stoppable() as stopped:
        yield lambda: next((name for name in gathered(stopped()) if name), "")


def expect_room(checkpoints: Checkpoints) -> list[int]:
    """The steps that are saved there. Raises CheckpointError if there are any and the run does not resume."""
    saved = by_first(lambda: steps(checkpoints.folder), CheckpointError)
    if saved and not checkpoints.resume:
        raise CheckpointError(
            f"{checkpoints.folder} already has checkpoints, up to step {saved[-1]}; resume from them (--resume), or choose "
            "another folder."
        )
    return saved


def expect_resumable(checkpoints: Checkpoints | None, state: TrainState) -> None:
    """Raise CheckpointError if a run with this state (shapes suffice) could not resume from what is saved."""
    if checkpoints is not None and expect_room(checkpoints):
        with suppress(NoneSound):
            expect_fit(checkpoints.folder, state, configuration=checkpoints.configuration, defaults=checkpoints.defaults)


def begin(checkpoints: Checkpoints | None, state: TrainState) -> tuple[TrainState, Progress]:
    """The state and progress to start from: the beginning, or the last save."""
    if checkpoints is None:
        return state, Progress()
    say = checkpoints.on_note or (lambda note: None)
    if not expect_room(checkpoints):
        if checkpoints.resume:
            say(f"no checkpoint in {checkpoints.folder} yet: starting from the beginning")
        return state, Progress()
    try:
        found = restore(checkpoints.folder, state, configuration=checkpoints.configuration, defaults=checkpoints.defaults)
    except NoneSound as error:
        for note in error.skipped:
            say(f"skipped: {note}")
        say(f"no valid checkpoint in {checkpoints.folder}: starting from the beginning; the files there stay")
        return state, Progress()
    for note in found.skipped:
        say(f"skipped: {note}")
    done = _progress(checkpoints, found.metrics)
    say(f"resuming from step {found.step}")
    if checkpoints.on_history is not None:
        checkpoints.on_history(done.history)
    return found.state, done


def _progress(checkpoints: Checkpoints, m: dict[str, Any]) -> Progress:
    try:
        return Progress(tuple(Epoch(*record) for record in m["history"]), m["loss"], m["seconds"], m.get("first"))
    except (KeyError, TypeError):
        raise CheckpointError(
            f"{checkpoints.folder} must hold a run of fit, got checkpoints of train.save; choose another folder."
        ) from None


def keep(checkpoints: Checkpoints, state: TrainState, step: int, done: Progress) -> None:
    """Save the current state and progress of the run."""
    score = done.history[-1].score if done.history else None
    metrics = {"accuracy": score, "history": done.history, "loss": done.loss, "seconds": done.seconds,
               "first": done.first}  # fmt: skip
    save(checkpoints.folder, state, step=step, configuration=checkpoints.configuration, metrics=metrics,
         keep=checkpoints.keep, best="accuracy")  # fmt: skip
