"""Compiled programs, kept on disk for the next run: JAX's own cache, in this project's folder."""

import hashlib
import os
import platform
import warnings
from collections.abc import Callable
from pathlib import Path

import jax

from ...data.dataset import DataError
from ...data.download import cache_folder

# Bytes that are kept, of many runs of other sizes each: JAX looks through all of them for each program that is added.
LARGEST = 1 << 27
PATIENCE = 5.0  # seconds to wait for another run that holds the folder's lock
SLOW = 0.05  # seconds of compiling from which a program is kept: reading one takes about 3 ms
LOCK, ENTRY, TIME = ".lockfile", "-cache", "-atime"  # file names of JAX's cache


def keep_programs(choice: str | None, say: Callable[[str], object]) -> Path | None:
    """Have JAX keep what it compiles, and where; choice: a folder, "off", or None for the usual one.

    If the user has chosen a folder by JAX's own setting, such as $JAX_COMPILATION_CACHE_DIR, JAX's settings stay as they are.
    If the folder cannot be written to, `say` is told so, and the run continues without it. Raises ValueError for a file.
    """
    if choice == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    # The cache only saves time: a full disk, a busy lock or a large program must not end a run.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache|Cache value for key")
    if choice is None and jax.config.values["jax_compilation_cache_dir"]:
        return None
    if choice is not None and os.path.lexists(choice) and not os.path.isdir(choice):
        raise ValueError(f"train: --compilation-cache must be a folder, got the file {choice}; name another place, or off.")
    try:
        folder = (cache_folder() / "programs" if choice is None else Path(choice)) / _machine()
        _made_ready(folder)
    except (OSError, DataError) as error:
        reason = getattr(error, "strerror", None) or error
        say(f"note: compiled programs are not kept for the next run: {choice or 'the cache folder'} cannot be used ({reason})")
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", LARGEST)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SLOW)
    return folder


def _machine() -> str:
    """A name for this kind of processor, as others may share the folder: a program for one may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), platform.processor())
    return hashlib.sha256(f"{platform.machine()} {flags}".encode()).hexdigest()[:12]


def _made_ready(folder: Path) -> None:
    """Make the folder, check that it can be locked and written to, and remove half-written files of runs that were killed.

    Raises OSError if that fails.
    """
    try:
        import filelock
    except ImportError:
        raise OSError("the package filelock of the train extra is missing") from None
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # whoever can write there can make this process run programs
    try:
        with filelock.FileLock(folder / LOCK, timeout=PATIENCE):
            for entry in folder.glob(f"*{ENTRY}"):
                if not (time := entry.with_name(entry.name.removesuffix(ENTRY) + TIME)).exists():  # half written, perhaps
                    entry.unlink(missing_ok=True)
                    time.unlink(missing_ok=True)
    except (filelock.Timeout, NotImplementedError) as error:
        raise OSError(f"it cannot be locked: {error}") from None
