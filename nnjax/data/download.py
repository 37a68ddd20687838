"""Files from the network or from a folder of one's own, verified byte for byte before they are used."""

import gzip
import hashlib
import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from .dataset import DataError
from .files import replacing

NEEDS_EXTRA = (
    "downloads need the train extra: python -m pip install 'nnjax[train]', or put the files in a folder and point "
    "$NNJAX_DATA to it."
)
DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer before the next mirror is tried


class Source(NamedTuple):
    """name: of the set, and of its folder; files: SHA-256 by name; suffix: on the mirrors; remote: other names there.

    The SHA-256 is of the decompressed bytes, so that any mirror's compression serves; with `packed` of the file as it is.
    """

    name: str
    mirrors: tuple[str, ...]
    files: dict[str, str]
    suffix: str = ".gz"
    packed: bool = False
    remote: Mapping[str, str] = MappingProxyType({})


def cache_folder() -> Path:
    """Where downloads are kept. Raises DataError where platformdirs, of the train extra, is not installed."""
    try:
        import platformdirs
    except ImportError:
        raise DataError(NEEDS_EXTRA) from None
    return Path(platformdirs.user_cache_dir("nnjax"))


def content(source: Source, name: str) -> bytes:
    """The verified, decompressed bytes of one file: from $NNJAX_DATA, from the cache folder, or downloaded there."""
    folders = []
    if os.environ.get("NNJAX_DATA"):
        given = Path(os.environ["NNJAX_DATA"])
        folders += [given / source.name, given]
    endings = (source.suffix,) if source.packed else (source.suffix, "") if source.suffix else ("",)
    for path in (folder / (name + ending) for folder in folders for ending in endings):
        if path.is_file():
            return read_verified(path, source, name, "replace it with a sound copy, or unset NNJAX_DATA")
    cached = cache_folder() / source.name / f"{name}{source.suffix}"
    if not cached.is_file():
        download(source, name, cached, [*folders, cached.parent])
    return read_verified(cached, source, name, "delete it and run again to download it anew")


def read_verified(path: Path, source: Source, name: str, remedy: str) -> bytes:
    """The bytes of a file, decompressed if it ends in .gz. Raises DataError unless they are the known ones."""
    try:
        raw = path.read_bytes()
        unpacked = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged: expected a whole gzip file, got {error}; {remedy}.") from None
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


def download(source: Source, name: str, target: Path, looked: list[Path]) -> None:
    """Fetch a file from the first mirror that has it, verify it, and only then put it in place, in one rename."""
    try:
        import pooch
    except ImportError:
        raise DataError(NEEDS_EXTRA) from None
    pooch.get_logger().setLevel(logging.ERROR)
    target.parent.mkdir(parents=True, exist_ok=True)
    failures, file, there = [], name + source.suffix, source.remote.get(name, name) + source.suffix
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        for mirror in source.mirrors:
            try:
                fetch: Any = pooch.HTTPDownloader(timeout=DOWNLOAD_TIMEOUT)
                got = Path(pooch.retrieve(f"{mirror}{there}", None, file, folder, downloader=fetch))
                read_verified(got, source, name, "trying the next mirror")
                with replacing(target) as draft:  # what was fetched is closed to all but its owner
                    shutil.copyfile(got, draft)
                return
            except (OSError, ValueError) as error:
                failures.append(f"{mirror}{there}: {str(error) or type(error).__name__}")
                Path(folder, file).unlink(missing_ok=True)
    raise DataError(
        f"{name} was not found in {', '.join(map(str, looked))} and could not be downloaded:\n  "
        + "\n  ".join(failures)
        + f"\nDownload {file} where there is a network, put it in a folder, and point $NNJAX_DATA to that folder."
    )
