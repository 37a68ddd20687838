"""Compiled programs, kept on the disk for the next run: JAX's own cache, in this project's folder."""

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
PATIENCE = 5.0  # seconds that are waited for another run which looks through the folder
SLOW = 0.05  # seconds of compiling, from which on a program is kept: to read one takes some 3 ms
LOCK, ENTRY, TIME = ".lockfile", "-cache", "-atime"  # names of JAX's own


def keep_programs(choice: str | None, say: Callable[[str], object]) -> Path | None:
    """Have JAX keep what it compiles, and where; choice: a folder, "off", or None for the usual one.

    Where the user has chosen a folder by JAX's own setting, as by $JAX_COMPILATION_CACHE_DIR, all its settings stay. A
    folder that cannot be written to is told to `say`, and the run goes on without. Raises ValueError for a file.
    """
    if choice == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    # What is kept only saves time: a full disk, a lock that is not had, a large program end nothing.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache|Cache value for key")
    if choice is None and jax.config.values["jax_compilation_cache_dir"]:
        return None
    if choice is not None and os.path.lexists(choice) and not os.path.isdir(choice):
        raise ValueError(f"train: --compilation-cache {choice} is no folder; name another place, or off.")
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
    """What tells this processor from others that may share the folder: a program for one may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), platform.processor())
    return hashlib.sha256(f"{platform.machine()} {flags}".encode()).hexdigest()[:12]


def _made_ready(folder: Path) -> None:
    """Make the folder, see that it can be locked and written to, and clear what a run left that was killed while it wrote.

    Raises OSError where that is not so.
    """
    try:
        import filelock
    except ImportError:
        raise OSError("it needs filelock, of the train extra") from None
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # who can write there can have this process run programs
    try:
        with filelock.FileLock(folder / LOCK, timeout=PATIENCE):
            for entry in folder.glob(f"*{ENTRY}"):
                if not (time := entry.with_name(entry.name.removesuffix(ENTRY) + TIME)).exists():  # half written, perhaps
                    entry.unlink(missing_ok=True)
                    time.unlink(missing_ok=True)
    except (filelock.Timeout, NotImplementedError) as error:
        raise OSError(f"it cannot be locked: {error}") from None
