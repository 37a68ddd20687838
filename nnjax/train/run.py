"""What a run is: its record, where it is saved, and where it stands when it begins or is gone on with."""

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
    """What an epoch came to. Accuracies are shares of 1 (NaN for an empty split, or targets that are no classes); seconds leave
    the evaluation out.

    measured: whatever else was asked for, by name; of targets that are numbers R² too, "validation_r2" and "test_r2".
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
        """What the best epoch has the most of: validation accuracy or R², or those of the test where nothing is held out."""
        r2 = [self.measured.get(name, float("nan")) for name in ("validation_r2", "test_r2")]
        known = (self.validation_accuracy, r2[0], self.test_accuracy, r2[1])
        return next((x for x in known if x == x), float("nan"))


OnEpoch = Callable[[Epoch], object]
OnSteps = Callable[[int, float], object]  # how many steps have been taken, and the mean loss of the last ones, NaN before them


class Fit(NamedTuple):
    """The last state, a record of every epoch, and why the run ended early: a signal's name, "patience", or "". See `fit`."""

    state: TrainState
    history: tuple[Epoch, ...]
    stopped: str = ""


class Checkpoints(NamedTuple):
    """Where a run is saved.  every: after how many steps, or each epoch; keep: how many of the newest stay, beside the one
    of the best validation (or test) accuracy; configuration: what a run that resumes must share; resume: go on from the
    newest sound one, from the beginning where there is none; on_note: told of damaged ones, and where it begins; claimed: the
    caller holds the folder (see `claim`); on_history: told the records of the epochs before where the run goes on. See `save`.
    """

    folder: str | Path
    every: int | None = None
    keep: int = 3
    configuration: Mapping[str, Any] = {}
    resume: bool = False
    on_note: Callable[[str], None] | None = None
    claimed: bool = False
    on_history: Callable[[tuple[Epoch, ...]], object] | None = None


class Progress(NamedTuple):
    """Of a run: its records; of the epoch under way the sum of the losses so far and the seconds; the very first loss."""

    history: tuple[Epoch, ...] = ()
    loss: float = 0.0
    seconds: float = 0.0
    first: float | None = None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Raise CheckpointError where another run holds this folder; until the end, or death, of this one others are refused."""
    held: list[Callable[[], None]] = []
    by_first(lambda: held.append(_lock(folder)), CheckpointError)
    try:
        expect_shared(folder)
        yield
    finally:
        for release in held:
            release()


def _lock(folder: Path) -> Callable[[], None]:
    """Take the folder; what gives it back, and takes away what was made for it where nothing else has come there."""
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
        raise CheckpointError(f"{folder} is in use by another run; wait for its end or choose another folder.") from None
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written to: {error}; choose another folder.") from None

    def release() -> None:
        with suppress(OSError):
            if new and [p.name for p in folder.iterdir()] == [file.name]:
                file.unlink()  # while it is held: who comes later makes another
        lock.release()
        with suppress(OSError):
            for path in made:
                path.rmdir()

    return release


def expect_shared(folder: Path, seconds: float = 5.0) -> None:
    """Raise CheckpointError, in every process, unless all see in this folder what the first writes there, so much later."""
    if jax.process_count() == 1:
        return
    made = folder / by_first(lambda: new_folder(folder, UNFINISHED).name, OSError)
    end = time.monotonic() + seconds  # a network disk may take its time
    while not made.is_dir() and time.monotonic() < end:
        time.sleep(0.1)
    sees = gathered(made.is_dir())
    by_first(made.rmdir, OSError)
    if not all(sees):
        raise CheckpointError(
            f"{folder} is not one folder for all processes: process {sees.index(False)} does not see what process 0 writes "
            "there; choose one on a disk that all share."
        )


@contextmanager
def claim(checkpoints: Checkpoints | None) -> Iterator[Checkpoints | None]:
    """The same checkpoints, with the folder to themselves from here on, before anything is read, written or compiled.

    Raises CheckpointError where another run holds the folder, or where it has checkpoints and the run is no resumed one.
    """
    if checkpoints is None or checkpoints.claimed:
        yield checkpoints
        return
    with alone(Path(checkpoints.folder)):
        expect_room(checkpoints)
        yield checkpoints._replace(claimed=True)


@contextmanager
def held(checkpoints: Checkpoints | None) -> Iterator[Callable[[], str]]:
    """What `stoppable` gives, with the folder to itself; a run that is not saved is ended by signals as ever.

    A signal that came to one of several processes has come to all.
    """
    if checkpoints is None:
        yield lambda: ""
        return
    with nullcontext() if checkpoints.claimed else alone(Path(checkpoints.folder)), stoppable() as stopped:
        yield lambda: next((name for name in gathered(stopped()) if name), "")


def expect_room(checkpoints: Checkpoints) -> list[int]:
    """The steps that are saved there. Raises CheckpointError where there are some and the run is no resumed one."""
    saved = by_first(lambda: steps(checkpoints.folder), CheckpointError)
    if saved and not checkpoints.resume:
        raise CheckpointError(
            f"{checkpoints.folder} has checkpoints up to step {saved[-1]}; go on from them with resume (--resume), or choose "
            "another folder."
        )
    return saved


def expect_resumable(checkpoints: Checkpoints | None, state: TrainState) -> None:
    """Raise CheckpointError where a run from this state, its shapes suffice, could not go on from what is saved."""
    if checkpoints is not None and expect_room(checkpoints):
        with suppress(NoneSound):
            expect_fit(checkpoints.folder, state, configuration=checkpoints.configuration)


def begin(checkpoints: Checkpoints | None, state: TrainState) -> tuple[TrainState, Progress]:
    """Where the run stands: at its beginning, or as it was last saved."""
    if checkpoints is None:
        return state, Progress()
    say = checkpoints.on_note or (lambda note: None)
    if not expect_room(checkpoints):
        if checkpoints.resume:
            say(f"nothing is saved in {checkpoints.folder} yet: starting from the beginning")
        return state, Progress()
    try:
        found = restore(checkpoints.folder, state, configuration=checkpoints.configuration)
    except NoneSound as error:
        for note in error.skipped:
            say(f"passed over: {note}")
        say(f"nothing sound is saved in {checkpoints.folder}: starting from the beginning; what is there stays")
        return state, Progress()
    for note in found.skipped:
        say(f"passed over: {note}")
    done = _progress(checkpoints, found.metrics)
    say(f"going on from step {found.step}")
    if checkpoints.on_history is not None:
        checkpoints.on_history(done.history)
    return found.state, done


def _progress(checkpoints: Checkpoints, m: dict[str, Any]) -> Progress:
    try:
        return Progress(tuple(Epoch(*record) for record in m["history"]), m["loss"], m["seconds"], m.get("first"))
    except (KeyError, TypeError):
        raise CheckpointError(
            f"{checkpoints.folder} holds no run of fit, but what train.save wrote; choose another folder."
        ) from None


def keep(checkpoints: Checkpoints, state: TrainState, step: int, done: Progress) -> None:
    """Save the run as it stands."""
    score = done.history[-1].score if done.history else None
    metrics = {"accuracy": score, "history": done.history, "loss": done.loss, "seconds": done.seconds,
               "first": done.first}  # fmt: skip
    save(checkpoints.folder, state, step=step, configuration=checkpoints.configuration, metrics=metrics,
         keep=checkpoints.keep, best="accuracy")  # fmt: skip
