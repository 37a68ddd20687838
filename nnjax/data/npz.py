"""Arrays of an .npz file, each compared with its header before it is read. Nothing is ever unpickled."""

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

SUFFIX = ".npy"


class _Refused(Exception):
    """A sentence on what is wrong with a file, and the remedy."""


def read_npz(path: Path, wanted: Iterable[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """(the wanted arrays that the file holds, the names of all its arrays).

    Raises FileNotFoundError, or ValueError, with the reason and the remedy, for a file that cannot be read.
    """
    try:
        if not path.stat().st_size:
            raise _Refused("it is empty; save it with np.savez")
        with zipfile.ZipFile(path) as file:
            members = {info.filename: info for info in file.infolist()}
            found = {}
            for name in wanted:
                if name in members:
                    raise _Refused(f"{name} is not an array: its name lacks {SUFFIX}; save it with np.savez")
                if name + SUFFIX in members:
                    found[name] = _array(file, members[name + SUFFIX], name)
            return found, [name.removesuffix(SUFFIX) for name in members]
    except FileNotFoundError:
        raise
    except _Refused as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # many kinds: from the zip, its four compressions, a header
        raise ValueError(f"{_why(path, error)}; save it with np.savez") from None


def _array(file: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> np.ndarray:
    if info.flag_bits & 1:
        raise _Refused(f"{name} is encrypted; save it with np.savez, without a password")
    if info.file_size > memory():
        raise _Refused(
            f"{name} takes {_size(info.file_size)}, but this machine has {_size(memory())} of memory; use fewer rows"
        )
    with file.open(info) as member:
        try:
            version = np.lib.format.read_magic(member)
            headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, by_columns, dtype = headers[version](member)
        except (ValueError, KeyError) as error:
            raise _Refused(f"{name} is not an array: {error}; save it with np.savez") from None
        if dtype.hasobject:
            raise _Refused(f"{name} holds Python objects, which would have to be unpickled; save plain numbers")
        count = 1
        for n in shape:  # in Python ints, which never overflow
            count *= n
        if min(shape, default=0) < 0 or count * dtype.itemsize != info.file_size - member.tell():
            raise _Refused(f"{name} should be {dtype} {shape}, which takes {_size(count * dtype.itemsize)}, but has "
                           f"{_size(info.file_size - member.tell())}; replace the file with an intact copy")  # fmt: skip
        data = member.read()  # to the end, where the checksum is compared
    return np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")


def memory() -> float:
    """Bytes of the machine's memory, infinite if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return float("inf")


def _size(n: float) -> str:
    return f"{n:,} bytes" if n < 1 << 20 else f"{n / (1 << 30):,.3g} GiB"


def _why(path: Path, error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it is larger than the memory"
    if isinstance(error, zipfile.BadZipFile) and path.is_file():
        with path.open("rb") as raw:
            if raw.read(6) == b"\x93NUMPY":
                return "it is a single array, saved with np.save"
    return str(error) or type(error).__name__
