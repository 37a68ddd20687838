"""What a data set is, files of one's own, and what is made of one before training."""

import hashlib
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ..errors import describe, is_array, whole_number
from .files import expect_path
from .npz import read_npz

PARTS = ("train", "validation", "test")
SHARES = (0.8, 0.1, 0.1)  # of a file that is not split


class DataError(ValueError):
    """Data that is missing, damaged or unusable; the message says what was expected, what came, and the remedy."""


class Split(NamedTuple):
    """x: float32 (examples, features), y: int32 (examples,): NumPy arrays, or arrays on a device."""

    x: Any
    y: Any


class Dataset(NamedTuple):
    """Training, validation and test examples; labels lie in 0 ... classes - 1.

    shape: of an example before it became a row of x, such as (28, 28) or (32, 32, 3), where that is known.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    shape: tuple[int, ...] | None = None


def digest(data: Any) -> str:
    """SHA-256 of what a data set or text holds, whatever its name; of an array of over 1 GiB, of a share of the rows."""
    found = hashlib.sha256()
    data = data._replace(name="", shape=None) if isinstance(data, Dataset) else data._replace(name="")
    for leaf in map(np.asarray, jax.tree.leaves(data)):
        found.update(f"{leaf.dtype} {leaf.shape} ".encode())
        found.update(np.ascontiguousarray(leaf[:: leaf.nbytes // (1 << 30) + 1] if leaf.ndim else leaf).tobytes())
    return found.hexdigest()


def expect_dataset(who: str, data: Any) -> None:
    """Raise TypeError unless data is a Dataset of Splits of arrays, DataError for a number of classes that is none."""
    if not isinstance(data, Dataset):
        raise TypeError(f"{who}: data must be a train.Dataset, got {describe(data)}; make one, or use train.load(name).")
    for part in PARTS:
        split = getattr(data, part)
        if not isinstance(split, Split) or not all(is_array(a) and a.ndim for a in split):
            raise TypeError(f"{who}: {part} must be a train.Split(x, y) of two arrays, a row for each example, got "
                            f"{describe(split)}; convert them with np.asarray.")  # fmt: skip
    if whole_number(data.classes) is None or (data.classes < 1 and len(data.train.x)):
        raise DataError(f"data set {data.name!r}: classes must be how many there are, got {data.classes!r}; count them.")


def validated(data: Dataset) -> Dataset:
    """The same data. Raises DataError where an array is not finite, lengths differ, or a label is out of range."""
    expect_dataset("data", data)
    for part in PARTS:
        x, y = getattr(data, part)
        who = f"data set {data.name!r}, {part}"
        if len(x) != len(y):
            raise DataError(f"{who}: expected one label for each example, got {len(x)} examples and {len(y)} labels.")
        if not np.issubdtype(x.dtype, np.floating):
            raise DataError(f"{who}: x must be floating point, got {describe(x)}; scale and convert it.")
        if not np.isfinite(x).all():
            rows = np.unique(np.argwhere(~np.isfinite(x))[:, 0])
            raise DataError(
                f"{who}: every number must be finite, got NaN or infinity in {len(rows)} examples, the first at row "
                f"{rows[0]}; remove these rows or replace the values."
            )
        if not np.issubdtype(y.dtype, np.integer) or (y.size and (y.min() < 0 or y.max() >= data.classes)):
            raise DataError(
                f"{who}: labels must be integers in 0 ... {data.classes - 1}, got {describe(y)} "
                f"from {y.min() if y.size else '-'} to {y.max() if y.size else '-'}; correct them or raise `classes`."
            )
    if not len(data.train.x):
        raise DataError(f"data set {data.name!r}: the training split is empty; give it at least one example.")
    return data


def load_arrays(path: str | Path) -> Dataset:
    """The data set in an .npz file of your own.

    It holds x (examples, ...) and y (examples,), which are shuffled, always alike, and split 80 : 10 : 10; or x_train,
    y_train, x_test, y_test and, if you like, x_validation, y_validation, which are left as they are.  x becomes float32
    with one row of features for each example, and is not scaled; y must be integers from 0.  Nothing is ever unpickled.
    Raises DataError for a file that cannot be read, lacks an array, or holds unusable numbers.
    """
    path = expect_path("load_files", path)
    try:
        arrays, held = read_npz(path, [f"{a}{part}" for part in ("", *(f"_{part}" for part in PARTS)) for a in "xy"])
    except FileNotFoundError:
        raise DataError(f"{path} is not there; check the path of the .npz file.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as an .npz file of plain arrays: {error}.") from None
    pairs = [(name, f"y{name[1:]}") for name in arrays if name.startswith("x") and f"y{name[1:]}" in arrays]
    for x, y in pairs:
        _expect_usable(path, x, arrays[x], y, arrays[y], sum(arrays[labels].size for _, labels in pairs))
    for name in arrays:
        other = ("y" if name.startswith("x") else "x") + name[1:]
        if other not in arrays and ({"x", "y"} & {name, other} or {"x_train", "y_train", "x_test", "y_test"} <= set(arrays)):
            raise DataError(f"{path} holds {name} but no {other}; save both, or neither.")
    if {"x", "y"} <= set(arrays):
        found = _split(path, arrays["x"], arrays["y"])
    elif {"x_train", "y_train", "x_test", "y_test"} <= set(arrays):
        empty = {"x_validation": arrays["x_train"][:0], "y_validation": arrays["y_train"][:0]}
        arrays = {**empty, **arrays}
        found = [Split(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in PARTS]
    else:
        raise DataError(
            f"{path} must hold x and y, or x_train, y_train, x_test and y_test, got {', '.join(sorted(held)) or 'nothing'}."
        )
    shape = found[0].x.shape[1:]
    for part, split in zip(PARTS, found):
        if split.x.shape[1:] != shape:
            raise DataError(f"{path}: examples must all have one shape, got {shape} in x_train and {split.x.shape[1:]} in "
                            f"x_{part}; save them alike.")  # fmt: skip
    if not math.prod(shape):
        raise DataError(f"{path}: an example must hold at least one number, got examples of shape {shape}; save some.")
    classes = max((int(s.y.max()) + 1 for s in found if s.y.size), default=0)
    rows = [Split(s.x.reshape(len(s.x), math.prod(s.x.shape[1:])).astype(np.float32), s.y.astype(np.int32)) for s in found]
    return validated(Dataset(path.name, *rows, classes=classes, shape=shape))


def _expect_usable(path: Path, x_name: str, x: np.ndarray, y_name: str, y: np.ndarray, n: int) -> None:
    """Raise DataError, in terms of the file of n labels, for examples and labels of which no data set can be made."""
    if x.ndim < 1 or y.shape != x.shape[:1]:
        raise DataError(
            f"{path}: expected one label for each example, got {x_name} {describe(x)} and {y_name} {describe(y)}; give "
            f"{y_name} the shape {tuple(x.shape[:1])}."
        )
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"{path}: labels must be integers from 0, got {y_name} {describe(y)}; convert them.")
    if x.dtype.kind not in "biuf":
        raise DataError(f"{path}: examples must be real numbers, got {x_name} {describe(x)}; convert them.")
    wrong = np.flatnonzero(~np.isfinite(x).reshape(len(x), math.prod(x.shape[1:])).all(1))
    if len(wrong):
        raise DataError(
            f"{path}: every number must be finite, got NaN or infinity in {len(wrong)} rows of {x_name}, the first in row "
            f"{wrong[0]}; remove these rows or replace the values."
        )
    largest = max(abs(float(x.max(initial=0))), abs(float(x.min(initial=0))))
    if largest > float(np.finfo(np.float32).max):
        raise DataError(f"{path}: examples become float32, which ends at 3.4e38, got {largest:.2g} in {x_name}; scale them.")
    if y.size and (y.min() < 0 or y.max() >= max(n, 2)):
        row = int(y.argmin() if y.min() < 0 else y.argmax())
        raise DataError(
            f"{path}: labels must number the classes from 0, got {y[row]} in row {row} of {y_name}, of {n} examples; "
            "renumber them."
        )


def _split(path: Path, x: np.ndarray, y: np.ndarray) -> list[Split]:
    order = np.random.default_rng(0).permutation(len(x))
    ends = [0, *(round(len(x) * sum(SHARES[: i + 1])) for i in range(len(SHARES)))]
    return [Split(x[order[a:b]], y[order[a:b]]) for a, b in zip(ends, ends[1:])]


def grey_side(who: str, data: Dataset) -> int:
    """The height, and width, of the square grey images that the examples are.

    Rows of which no other shape is known are such images where their length is a square.
    Raises DataError for examples of another shape, colour images among them.
    """
    shape = tuple(data.train.x.shape[1:]) if data.shape is None else tuple(data.shape)
    side = math.isqrt(math.prod(shape))
    if shape not in ((side * side,), (side, side), (side, side, 1)):
        raise DataError(f"data set {data.name!r}: {who} takes square grey images, got examples of shape {shape}; make them "
                        "square and grey first, or leave it out.")  # fmt: skip
    return side


def expand(data: Dataset) -> Dataset:
    """Five times the training images: each as it is, and shifted by one pixel down, up, right and left, zeros moving in.

    As in Nielsen's chapter 3; images are square and grey, a row of x each.  Raises DataError for others, see `grey_side`.
    """
    expect_dataset("expand", data)
    side = grey_side("expand", data)
    n, pixels = len(data.train.x), side * side
    images = data.train.x.reshape(n, side, side)
    moved = [images]
    for axis in (1, 2):
        zeros = np.zeros_like(np.take(images, [0], axis))
        moved.append(np.concatenate([zeros, np.take(images, range(side - 1), axis)], axis))
        moved.append(np.concatenate([np.take(images, range(1, side), axis), zeros], axis))
    x = np.concatenate(moved).reshape(len(moved) * n, pixels)
    return data._replace(train=Split(x, np.tile(data.train.y, len(moved))))


class Moments(NamedTuple):
    """Of every feature, over the training examples: float64 (features,)."""

    mean: np.ndarray
    deviation: np.ndarray


def moments(data: Dataset) -> Moments:
    """Mean and deviation of every training feature; 1 is the deviation of one that never varies, so that it becomes 0."""
    validated(data)
    x = data.train.x.astype(np.float64)
    deviation = x.std(0)
    return Moments(x.mean(0), np.where(deviation == 0, 1.0, deviation))


def scaled(x: Any, known: Moments) -> np.ndarray:
    """Rows of float32 with the mean taken off, divided by the deviation; float32 again."""
    return ((x - known.mean) / known.deviation).astype(np.float32)


def standardise(data: Dataset, known: Moments | None = None) -> Dataset:
    """Every feature with mean 0 and deviation 1 over the training examples; one that never varies becomes 0.

    known: the `moments` to use, by default those of the data.
    """
    known = moments(data) if known is None else known
    parts = {part: getattr(data, part) for part in PARTS}
    return data._replace(**{part: Split(scaled(split.x, known), split.y) for part, split in parts.items()})
