"""Files from the network or from your own folder, verified byte by byte before they are used."""

import gzip
import hashlib
import logging
import os
import shutil
import tempfile
import textwrap
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from .dataset import DataError
from .files import replacing

NEEDS_EXTRA = (
    "downloads need the train extra: python -m pip install 'nnjax[train]', or put the files in a folder and set "
    "$NNJAX_DATA to it."
)
DOWNLOAD_TIMEOUT = 30.0  # seconds to wait for an answer before trying the next mirror


class Source(NamedTuple):
    """name: of the set, and of its folder; files: SHA-256 by name; suffix: on the mirrors; remote: other names there.

    The SHA-256 is of the decompressed bytes, so that any compression will do; with `packed` it is of the file as it is.
    """

    name: str
    mirrors: tuple[str, ...]
    files: dict[str, str]
    suffix: str = ".gz"
    packed: bool = False
    remote: Mapping[str, str] = MappingProxyType({})


def cache_folder() -> Path:
    """The folder for downloads. Raises DataError if platformdirs, from the train extra, is not installed."""
    try:
        import platformdirs
    except ImportError:
        raise DataError(NEEDS_EXTRA) from None
    return Path(platformdirs.user_cache_dir("nnjax"))


def content(source: Source, name: str) -> bytes:
    """The verified, decompressed bytes of one file: from $NNJAX_DATA, from the cache folder, or downloaded there."""
    return contents(source, [name])[name]


def contents(source: Source, names: Iterable[str]) -> dict[str, bytes]:
    """The same for several files. Raises one DataError for all files that cannot be found."""
    given = [Path(given) for given in [os.environ.get("NNJAX_DATA")] if given]
    folders = [folder for path in given for folder in (path / source.name, path)]
    endings = (source.suffix,) if source.packed else (source.suffix, "") if source.suffix else ("",)
    found, missing = {}, {}
    for name in names:
        paths = (folder / (name + ending) for folder in folders for ending in endings)
        if (path := next((path for path in paths if path.is_file()), None)) is not None:
            found[name] = read_verified(path, source, name, "replace it with an intact copy, or unset NNJAX_DATA")
        elif (cached := cache_folder() / source.name / f"{name}{source.suffix}").is_file():
            found[name] = read_verified(cached, source, name, "delete it and run again to download it")
        else:
            missing[name] = cached
    for name, cached in missing.items():
        if failures := download(source, name, cached):
            lack = [name + source.suffix for name, cached in missing.items() if not cached.is_file()]
            raise DataError(_lacking(source.name, lack, [*folders, cached.parent], failures))
        found[name] = read_verified(cached, source, name, "delete it and run again to download it")
    return found


def _lacking(name: str, files: list[str], looked: list[Path], failures: dict[str, str]) -> str:
    """The message for files that were not found, in lines that fit a narrow terminal."""
    them, one = ("them", False) if len(files) > 1 else ("it", True)
    said = [
        f"{name}: {'a file was' if one else f'{len(files)} files were'} not found, and could not be downloaded.",
        "missing:",
    ]
    said += [f"  {file}" for file in files]
    said += ["looked in:", *(f"  {folder}" for folder in looked), "downloaded from:"]
    for address, reason in failures.items():
        said += [f"  {address}", *textwrap.wrap(reason, 78, initial_indent="    ", subsequent_indent="    ")]
    said.append(f"Download {them} where there is a network, put {them} in a folder,\nand set $NNJAX_DATA to that folder.")
    return "\n".join(said)


def read_verified(path: Path, source: Source, name: str, remedy: str) -> bytes:
    """The bytes of a file, decompressed if it ends in .gz. Raises DataError unless their SHA-256 is the known one."""
    try:
        raw = path.read_bytes()
        unpacked = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged: expected a complete gzip file, got {error}; {remedy}.") from None
    expect_digest(path, raw if source.packed else unpacked, source.files[name], remedy)
    return unpacked


def expect_digest(path: Any, content: bytes, sha256: str, remedy: str) -> None:
    """Raise DataError unless the content has this SHA-256."""
    came = hashlib.sha256(content).hexdigest()
    if came != sha256:
        raise DataError(
            f"{path} is damaged: expected content with SHA-256 {sha256[:16]}..., got {came[:16]}... "
            f"({len(content)} bytes); {remedy}."
        )


def download(source: Source, name: str, target: Path) -> dict[str, str]:
    """Fetch a file from the first mirror that has it, verify it, and only then rename it into place.

    If no mirror has it, returns a short reason for each, by its address.
    """
    try:
        import pooch
    except ImportError:
        raise DataError(NEEDS_EXTRA) from None
    pooch.get_logger().setLevel(logging.ERROR)
    target.parent.mkdir(parents=True, exist_ok=True)
    failures, file, there = {}, name + source.suffix, source.remote.get(name, name) + source.suffix
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        for mirror in source.mirrors:
            try:
                fetch: Any = pooch.HTTPDownloader(timeout=DOWNLOAD_TIMEOUT)
                got = Path(pooch.retrieve(f"{mirror}{there}", None, file, folder, downloader=fetch))
                read_verified(got, source, name, "trying the next mirror")
                with replacing(target) as draft:  # the fetched file is readable only by its owner
                    shutil.copyfile(got, draft)
                return {}
            except (OSError, ValueError) as error:
                failures[f"{mirror}{there}"] = _reason(error)
                Path(folder, file).unlink(missing_ok=True)
    return failures or {"(no address)": "none is known"}


def _reason(error: BaseException) -> str:
    """A short reason why a download failed: libraries nest exceptions several levels deep."""
    response: Any = getattr(error, "response", None)
    if response is not None:
        return f"{response.status_code} {response.reason}"
    if isinstance(error, DataError):
        return "is damaged: " + str(error).partition(" is damaged: ")[2].partition(";")[0]
    causes: list[BaseException] = []
    todo: list[Any] = [error]
    while todo:
        at = todo.pop()
        if isinstance(at, BaseException) and not any(at is c for c in causes):
            causes.append(at)
            todo += [*at.args, getattr(at, "reason", None), at.__cause__, at.__context__]
    words = " ".join(map(str, causes))
    if "timed out" in words:
        return "timed out: no answer"
    if "IncompleteRead" in words:
        return "the connection ended before the file did"
    told = [c.strerror for c in causes if isinstance(c, OSError) and c.strerror]
    return told[-1] if told else (str(error).splitlines() or [type(error).__name__])[0][:150]
