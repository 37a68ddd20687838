"""Real data sets, verified byte for byte and never unpickled."""

import gzip
import hashlib
import logging
import os
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import unknown_name
from .dataset import DataError, Dataset, Split, load_files, validated

MNIST_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
MNIST_SHA256 = {  # of the decompressed bytes, so that any mirror's compression serves
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
DIGITS_SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
NEEDS_EXTRA = (
    "downloads need the train extra: python -m pip install 'nnjax[train]', or put the files in a folder and point "
    "$NNJAX_DATA to it."
)
DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer before the next mirror is tried


def load(name: str) -> Dataset:
    """The data set of this name.

    digits: 1,797 images of 8x8 (UCI, CC BY 4.0), shipped with the package; 1,257 to train, 180 to validate, 360 to test.
    mnist: 70,000 images of 28x28; 50,000 to train, the last 10,000 training images to validate, 10,000 to test. Looked
    for under $NNJAX_DATA, then in the cache folder, then downloaded there.
    A name that ends in .npz is a file of your own: see `load_files`.
    Pixels are scaled to 0 ... 1. Raises ValueError for a name that is not known, DataError for data that cannot be had or
    is damaged.
    """
    if name.endswith(".npz"):
        return load_files(name)
    if name not in _LOADERS:
        raise unknown_name("data set", name, _LOADERS)
    return validated(_LOADERS[name]())


def _digits() -> Dataset:
    path = Path(__file__).with_name("digits.npz")
    with np.load(path, allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    _expect_digest(path, images.tobytes() + labels.tobytes(), DIGITS_SHA256, "reinstall nnjax")
    order = np.random.default_rng(0).permutation(len(labels))
    x, y = (images[order] / np.float32(16)).astype(np.float32), labels[order].astype(np.int32)
    cut = [slice(0, 1257), slice(1257, 1437), slice(1437, None)]
    return Dataset("digits", *(Split(x[s], y[s]) for s in cut), classes=10)


def _mnist() -> Dataset:
    parts = {name: parse_idx(name, mnist_bytes(name)) for name in MNIST_SHA256}

    def split(prefix):
        images, labels = parts[f"{prefix}-images-idx3-ubyte"], parts[f"{prefix}-labels-idx1-ubyte"]
        x = images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
        return Split(x, labels.astype(np.int32))

    train, test = split("train"), split("t10k")
    validation = Split(train.x[50_000:], train.y[50_000:])
    return Dataset("mnist", Split(train.x[:50_000], train.y[:50_000]), validation, test, classes=10)


_LOADERS = {"digits": _digits, "mnist": _mnist}


def cache_folder() -> Path:
    """Where downloads are kept. Raises DataError where platformdirs, of the train extra, is not installed."""
    try:
        import platformdirs
    except ImportError:
        raise DataError(NEEDS_EXTRA) from None
    return Path(platformdirs.user_cache_dir("nnjax"))


def mnist_bytes(name: str) -> bytes:
    """The verified, decompressed bytes of one of the four IDX files."""
    folders = []
    if os.environ.get("NNJAX_DATA"):
        given = Path(os.environ["NNJAX_DATA"])
        folders += [given / "mnist", given]
    looked = [folder / (name + suffix) for folder in folders for suffix in (".gz", "")]
    for path in looked:
        if path.is_file():
            return read_verified(path, MNIST_SHA256[name], "replace it with a sound copy, or unset NNJAX_DATA")
    cached = cache_folder() / "mnist" / f"{name}.gz"
    if not cached.is_file():
        download(name, cached, MNIST_SHA256[name], [*folders, cached.parent])
    return read_verified(cached, MNIST_SHA256[name], "delete it and run again to download it anew")


def read_verified(path: Path, sha256: str, remedy: str) -> bytes:
    """The bytes of a file, decompressed if it ends in .gz. Raises DataError unless they have this SHA-256."""
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged: expected a whole gzip file, got {error}; {remedy}.") from None
    _expect_digest(path, content, sha256, remedy)
    return content


def _expect_digest(path, content: bytes, sha256: str, remedy: str) -> None:
    came = hashlib.sha256(content).hexdigest()
    if came != sha256:
        raise DataError(
            f"{path} is damaged: expected content with SHA-256 {sha256[:16]}..., got {came[:16]}... "
            f"({len(content)} bytes); {remedy}."
        )


def download(name: str, target: Path, sha256: str, looked: list[Path]) -> None:
    """Fetch NAME.gz from the first mirror that has it, verify it, and only then put it in place, in one rename."""
    try:
        import pooch
    except ImportError:
        raise DataError(NEEDS_EXTRA) from None
    pooch.get_logger().setLevel(logging.ERROR)
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        for mirror in MNIST_MIRRORS:
            try:
                fetch: Any = pooch.HTTPDownloader(timeout=DOWNLOAD_TIMEOUT)
                got = Path(pooch.retrieve(f"{mirror}{name}.gz", None, f"{name}.gz", folder, downloader=fetch))
                read_verified(got, sha256, "trying the next mirror")
                os.replace(got, target)
                return
            except (OSError, ValueError) as error:
                failures.append(f"{mirror}{name}.gz: {str(error) or type(error).__name__}")
                Path(folder, f"{name}.gz").unlink(missing_ok=True)
    raise DataError(
        f"{name} was not found in {', '.join(map(str, looked))} and could not be downloaded:\n  "
        + "\n  ".join(failures)
        + f"\nDownload {name}.gz where there is a network, put it in a folder, and point $NNJAX_DATA to that folder."
    )


def parse_idx(name: str, content: bytes) -> np.ndarray:
    """The array in an IDX file of unsigned bytes: two zeros, type 8, number of axes, sizes (big-endian), data."""
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise DataError(f"{name}: expected an IDX file of unsigned bytes, got a header {content[:4]!r}; replace the file.")
    start = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != np.prod(shape, dtype=np.int64):
        raise DataError(
            f"{name}: expected {np.prod(shape, dtype=np.int64)} bytes of data for shape {shape}, "
            f"got {len(content) - start}; the file is cut short or padded: replace it."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
