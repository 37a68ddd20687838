"""Real data sets, verified byte by byte and never unpickled."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Literal, overload

import numpy as np

from ..errors import unknown_name
from .dataset import DataError, Dataset, Split, load_arrays, validated
from .download import Source, content, contents, expect_digest
from .files import expect_path
from .folder import load_folder
from .npz import read_npz
from .table import TABLES, load_table
from .text import Text, load_text, make_text

DIGITS_SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
IMAGES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
SCALES = {"digits": 16, "mnist": 255, "fashion_mnist": 255, "kmnist": 255}  # the divisor of the pixels in the files
SOURCES = {
    "mnist": Source(
        "mnist",
        ("https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/"),
        {
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    "fashion_mnist": Source(
        "fashion_mnist",
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        {
            "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
        packed=True,
    ),
    "kmnist": Source(
        "kmnist",
        ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/", "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
        {
            "train-images-idx3-ubyte": "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "train-labels-idx1-ubyte": "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "t10k-images-idx3-ubyte": "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "t10k-labels-idx1-ubyte": "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        },
        packed=True,
    ),
    "tiny_shakespeare": Source(
        "tiny_shakespeare",
        ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/",),
        {"tinyshakespeare.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
        suffix="",
        remote={"tinyshakespeare.txt": "input.txt"},
    ),
}
FILES = (".npz", ".txt", *TABLES)
OTHERS = (".npy", ".tsv", ".xls", ".xlsx", ".json", ".jsonl", ".arrow", ".feather", ".h5", ".hdf5", ".mat", ".pkl", ".pickle",
          ".pt", ".zip", ".gz", ".tar", ".png", ".jpg", ".jpeg", ".gif", ".pdf")  # fmt: skip
KINDS = "an .npz file of arrays x and y, a table (.csv, .parquet), a text (.txt), or a folder of images"


@overload
def load(name: Literal["digits", "mnist", "fashion_mnist", "kmnist"]) -> Dataset: ...
@overload
def load(name: Literal["tiny_shakespeare"]) -> Text: ...
@overload
def load(name: str | Path, target: str | None = None, regression: bool = False) -> Dataset | Text: ...


def load(name: str | Path, target: str | None = None, regression: bool = False) -> Dataset | Text:
    """The data set of this name.

    digits: 1,797 images of 8x8 (UCI, CC BY 4.0), shipped with the package; 1,257 to train, 180 to validate, 360 to test.
    mnist, fashion_mnist, kmnist: 70,000 images of 28x28; 50,000 to train, the last 10,000 training images to validate,
    10,000 to test.  tiny_shakespeare: 1,115,394 characters, a Text.  All but the first are taken from
    $NNJAX_DATA, or from the cache folder, or are downloaded there.
    A name that ends in .npz, .csv, .parquet or .txt, or that is a folder, means your own data: see `load_files`.
    Pixels are scaled to 0 ... 1. Raises ValueError for an unknown name, DataError for data that is missing or damaged.
    """
    name = str(expect_path("load", name))
    if name not in _LOADERS and (Path(name).suffix.lower() in (*FILES, *OTHERS) or Path(name).is_dir()):
        return load_files(name, target, regression)
    if name not in _LOADERS:
        error = unknown_name("data set", name, _LOADERS)
        raise error if "did you mean" in str(error) else DataError(f"{error} A path of your own must lead to {KINDS}.")
    _expect_no_choice(name, target, regression, "a data set of its own classes")
    found = _LOADERS[name]()
    return validated(found) if isinstance(found, Dataset) else found


def load_files(path: str | Path, target: str | None = None, regression: bool = False) -> Dataset | Text:
    """Data of your own: an .npz file of arrays x and y (see `dataset.load_arrays`), a table, .csv or .parquet
    (`table.load_table`), a folder of images (`folder.load_folder`), or else text in UTF-8 (`load_text`).

    target: the column of a table to predict, by default the last; regression: predict the whole numbers of a table or an
    .npz file as numbers rather than as classes.
    Raises DataError for a path that is missing, cannot be read, or holds unusable data.
    """
    path = expect_path("load_files", path)
    suffix = path.suffix.lower()
    if suffix in TABLES:
        return load_table(path, target, regression)
    if suffix == ".npz":
        _expect_no_choice(path, target, False, "an .npz file")
        return load_arrays(path, regression)
    if suffix in OTHERS:
        raise DataError(f"{path}: {suffix} files cannot be read, expected {KINDS}; convert it.")
    _expect_no_choice(path, target, regression, "a folder of images" if path.is_dir() else "a text")
    return load_folder(path) if path.is_dir() else load_text(path)


def _expect_no_choice(name: str | Path, target: str | None, regression: bool, what: str) -> None:
    """Raise DataError for a choice of target that this kind of data does not have."""
    if target is not None:
        raise DataError(f"{name} is {what}, expected a table for target (--target); leave it out.")
    if regression:
        raise DataError(f"{name} is {what}, expected numbers for regression (--regression); leave it out.")


def scale_of(name: str | Path) -> int:
    """The number by which `load` divides the pixels in the files of this data; 1 if it does not scale."""
    return SCALES.get(str(name), 255 if Path(name).is_dir() else 1)


def load_images(name: str | Path, regression: bool = False) -> Dataset:
    """`load`, for examples with labels only. Raises DataError for a text."""
    found = load(name, None, regression)
    if not isinstance(found, Dataset):
        raise DataError(f"{name} is a text, expected examples with labels; choose digits, mnist, or an .npz file.")
    return found


def _digits() -> Dataset:
    path = Path(__file__).with_name("digits.npz")
    try:
        images, labels = (read_npz(path, ["images", "labels"])[0][name] for name in ("images", "labels"))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be read: {error}; reinstall nnjax.") from None
    expect_digest(path, images.tobytes() + labels.tobytes(), DIGITS_SHA256, "reinstall nnjax")
    order = np.random.default_rng(0).permutation(len(labels))
    x, y = (images[order] / np.float32(SCALES["digits"])).astype(np.float32), labels[order].astype(np.int32)
    cut = [slice(0, 1257), slice(1257, 1437), slice(1437, None)]
    return Dataset("digits", *(Split(x[s], y[s]) for s in cut), classes=10, shape=(8, 8))


def _images(name: str) -> Dataset:
    parts = {file: parse_idx(file, raw) for file, raw in contents(SOURCES[name], IMAGES).items()}

    def split(prefix):
        images, labels = parts[f"{prefix}-images-idx3-ubyte"], parts[f"{prefix}-labels-idx1-ubyte"]
        x = images.reshape(len(images), -1).astype(np.float32) / np.float32(SCALES[name])
        return Split(x, labels.astype(np.int32))

    train, test = split("train"), split("t10k")
    validation = Split(train.x[50_000:], train.y[50_000:])
    shape = parts[IMAGES[0]].shape[1:]
    return Dataset(name, Split(train.x[:50_000], train.y[:50_000]), validation, test, classes=10, shape=shape)


def _shakespeare() -> Text:
    return make_text("tiny_shakespeare", content(SOURCES["tiny_shakespeare"], "tinyshakespeare.txt").decode("utf-8"))


_LOADERS: dict[str, Callable[[], Dataset | Text]] = {
    "digits": _digits,
    "mnist": lambda: _images("mnist"),
    "fashion_mnist": lambda: _images("fashion_mnist"),
    "kmnist": lambda: _images("kmnist"),
    "tiny_shakespeare": _shakespeare,
}


def parse_idx(name: str, content: bytes) -> np.ndarray:
    """The array in an IDX file of unsigned bytes: two zeros, type 8, number of axes, sizes (big-endian), data."""
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise DataError(f"{name}: expected an IDX file of unsigned bytes, got a header {content[:4]!r}; replace the file.")
    start = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != np.prod(shape, dtype=np.int64):
        raise DataError(
            f"{name}: expected {np.prod(shape, dtype=np.int64)} bytes of data for shape {shape}, "
            f"got {len(content) - start}; the file is truncated or padded: replace it."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
