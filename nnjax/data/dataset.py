"""Data sets: their form, your own files, and what is done with a data set before training."""

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
SHARES = (0.8, 0.1, 0.1)  # of a file without a split


class DataError(ValueError):
    """Data that is missing, damaged or unusable; the message says what was expected, what came, and the remedy."""


class Split(NamedTuple):
    """x: float32 (examples, features); y: int32 (examples,), classes, or float32 (examples,) or (examples, targets), numbers
    to predict. Both are NumPy arrays, or arrays on a device."""

    x: Any
    y: Any


class Dataset(NamedTuple):
    """Training, validation and test examples; labels lie in 0 ... classes - 1, or classes is 0 and y are numbers: regression.

    shape: of an example before it became a row of x, such as (28, 28) or (32, 32, 3), if known.
    class_names: of each class, if they have names. features, targets: names of the columns of x and of y, for a table.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int = 0
    shape: tuple[int, ...] | None = None
    class_names: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None

    @property
    def regression(self) -> bool:
        """Whether y are numbers to predict, not classes."""
        return self.classes == 0

    @property
    def outputs(self) -> int:
        """How many numbers a network returns for an example: one for each class, or for each target."""
        return self.classes or math.prod(self.train.y.shape[1:])


def digest(data: Any) -> str:
    """SHA-256 of the content of a data set or text, whatever its name; for an array of over 1 GiB, of some of its rows."""
    found = hashlib.sha256()
    words = {"shape": None, "class_names": None, "features": None, "targets": None} if isinstance(data, Dataset) else {}
    data = data._replace(name="", **words)
    for leaf in map(np.asarray, jax.tree.leaves(data)):
        found.update(f"{leaf.dtype} {leaf.shape} ".encode())
        found.update(np.ascontiguousarray(leaf[:: leaf.nbytes // (1 << 30) + 1] if leaf.ndim else leaf).tobytes())
    return found.hexdigest()


def expect_dataset(who: str, data: Any) -> None:
    """Raise TypeError unless data is a Dataset of Splits of arrays, DataError for an invalid number of classes."""
    if not isinstance(data, Dataset):
        raise TypeError(f"{who}: data must be a train.Dataset, got {describe(data)}; make one, or use train.load(name).")
    for part in PARTS:
        split = getattr(data, part)
        if not isinstance(split, Split) or not all(is_array(a) and a.ndim for a in split):
            raise TypeError(f"{who}: {part} must be a train.Split(x, y) of two arrays, a row for each example, got "
                            f"{describe(split)}; convert them with np.asarray.")  # fmt: skip
    floating = np.issubdtype(data.train.y.dtype, np.floating)
    if whole_number(data.classes) is None or (data.classes < (0 if floating else 1) and len(data.train.x)):
        raise DataError(f"data set {data.name!r}: classes must be the number of classes, got {data.classes!r}; count them.")


def expect_targets(who: str, y: Any, shape: tuple[int, ...]) -> None:
    """Raise DataError unless y are floats, one number for each example or a row of this shape, all finite."""
    if not np.issubdtype(y.dtype, np.floating) or y.ndim > 2 or y.shape[1:] != shape or 0 in shape:
        raise DataError(f"{who}: targets must be floats, one for each example or a row of equal length in every split, got "
                        f"{describe(y)}; convert them, or for labels set the number of classes.")  # fmt: skip
    wrong = np.flatnonzero(~np.isfinite(np.asarray(y)).reshape(len(y), math.prod(shape)).all(1))
    if len(wrong):
        raise DataError(f"{who}: every target must be finite, got NaN or infinity in {len(wrong)} examples, the first at row "
                        f"{wrong[0]}; remove these rows or replace the values.")  # fmt: skip


def expect_varying(data: Dataset) -> None:
    """Raise DataError for a target that has the same value in all training examples."""
    y = np.asarray(data.train.y).reshape(len(data.train.y), data.outputs)
    for i in np.flatnonzero(y.min(0) == y.max(0)):
        name = repr(data.targets[i]) if data.targets else i
        raise DataError(f"data set {data.name!r}, train: target {name} is {y[0, i]:g} in every example, so there is "
                        "nothing to learn, and R² is not defined; choose another target, or add rows.")  # fmt: skip


def validated(data: Dataset) -> Dataset:
    """The same data. Raises DataError if an array is not finite, lengths differ, a label is out of range, or a target of the
    training examples never varies."""
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
        if data.regression and len(data.train.x):
            expect_targets(who, y, data.train.y.shape[1:])
        elif not np.issubdtype(y.dtype, np.integer) or (y.size and (y.min() < 0 or y.max() >= data.classes)):
            raise DataError(
                f"{who}: labels must be integers in 0 ... {data.classes - 1}, got {describe(y)} "
                f"from {y.min() if y.size else '-'} to {y.max() if y.size else '-'}; correct them or raise `classes`; to "
                "predict numbers, set classes to 0."
            )
    if not len(data.train.x):
        raise DataError(f"data set {data.name!r}: the training split is empty; give it at least one example.")
    if data.regression:
        expect_varying(data)
    return data


def load_arrays(path: str | Path, regression: bool = False) -> Dataset:
    """The data set in an .npz file of your own.

    It holds x (examples, ...) and y (examples,), which are shuffled, always in the same order, and split 80 : 10 : 10; or
    x_train, y_train, x_test, y_test and, optionally, x_validation, y_validation, which stay as they are.  x becomes float32
    with one row of features for each example, and is not scaled. y are integers from 0, which are classes, or floats
    (examples,) or (examples, targets), which are numbers to predict; regression: integers are such numbers too.  Nothing is
    ever unpickled.
    Raises DataError for a file that cannot be read, lacks an array, or holds unusable numbers.
    """
    path = expect_path("load_files", path)
    try:
        arrays, held = read_npz(path, [f"{a}{part}" for part in ("", *(f"_{part}" for part in PARTS)) for a in "xy"])
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path of the .npz file.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable .npz file of plain arrays: {error}.") from None
    pairs = [(name, f"y{name[1:]}") for name in arrays if name.startswith("x") and f"y{name[1:]}" in arrays]
    if regression:
        arrays |= {y: arrays[y].astype(np.float64) for _, y in pairs if arrays[y].dtype.kind in "iu"}
    for x, y in pairs:
        _expect_usable(path, x, arrays[x], y, arrays[y], sum(arrays[labels].size for _, labels in pairs))
    for name in arrays:
        other = ("y" if name.startswith("x") else "x") + name[1:]
        if other not in arrays and ({"x", "y"} & {name, other} or {"x_train", "y_train", "x_test", "y_test"} <= set(arrays)):
            raise DataError(f"{path} must hold {name} and {other} together, got only {name}; save both, or neither.")
    if {"x", "y"} <= set(arrays):
        found = split_rows(arrays["x"], arrays["y"])
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
            raise DataError(f"{path}: all examples must have the same shape, got {shape} in x_train and {split.x.shape[1:]} in "
                                        f"x_{part}; reshape them.")  # fmt: skip
    if not math.prod(shape):
        raise DataError(f"{path}: an example must hold at least one number, got examples of shape {shape}; save some.")
    if len({s.y.dtype.kind == "f" for s in found if len(s.y)}) > 1:
        raise DataError(f"{path}: y must be integers in all parts, or floats in all, got "
                        f"{', '.join(describe(s.y) for s in found if len(s.y))}; convert them.")  # fmt: skip
    numbers = any(s.y.dtype.kind == "f" for s in found if len(s.y))
    classes = 0 if numbers else max((int(s.y.max()) + 1 for s in found if s.y.size), default=0)
    dtype = np.float32 if numbers else np.int32
    rows = [Split(s.x.reshape(len(s.x), math.prod(s.x.shape[1:])).astype(np.float32), s.y.astype(dtype)) for s in found]
    return validated(Dataset(path.name, *rows, classes=classes, shape=shape))


def _expect_usable(path: Path, x_name: str, x: np.ndarray, y_name: str, y: np.ndarray, n: int) -> None:
    """Raise DataError, in terms of the file of n labels, for unusable examples and labels."""
    numbers = y.dtype.kind == "f" and y.ndim == 2
    if x.ndim < 1 or y.shape[: 1 if numbers else None] != x.shape[:1]:
        raise DataError(
            f"{path}: expected one label for each example, got {x_name} {describe(x)} and {y_name} {describe(y)}; give "
            f"{y_name} the shape {tuple(x.shape[:1])}."
        )
    if y.dtype.kind not in "iuf":
        raise DataError(f"{path}: y must be integers from 0, which are classes, or floats, which are targets, got {y_name} "
                        f"{describe(y)}; convert them.")  # fmt: skip
    if x.dtype.kind not in "biuf":
        raise DataError(f"{path}: examples must be real numbers, got {x_name} {describe(x)}; convert them.")
    for name, a in ((x_name, x), (y_name, y)):
        expect_numbers(path, name, a)
    if numbers and y.shape[1] > 1 and len(y) and ((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all():
        raise DataError(f"{path}: y must be class numbers, got one-hot rows in {y_name}; save {y_name}.argmax(1).")
    if y.dtype.kind != "f" and y.size and (y.min() < 0 or y.max() >= max(n, 2)):
        row = int(y.argmin() if y.min() < 0 else y.argmax())
        raise DataError(
            f"{path}: labels must number the classes from 0, got {y[row]} in row {row} of {y_name}, of {n} examples; "
            "renumber them; or, to predict numbers, pass regression (--regression), or save floats."
        )


def expect_numbers(path: Path, name: str, a: np.ndarray, first: int = 0) -> None:
    """Raise DataError unless every number of the array `name` of a file fits float32; first: the number of its first row."""
    wrong = np.flatnonzero(~np.isfinite(a).reshape(len(a), math.prod(a.shape[1:])).all(1))
    if len(wrong):
        raise DataError(
            f"{path}: every number must be finite, got NaN or infinity in {len(wrong)} rows of {name}, the first in row "
            f"{wrong[0] + first}; remove these rows or replace the values."
        )
    largest = max(abs(float(a.max(initial=0))), abs(float(a.min(initial=0))))
    if largest > float(np.finfo(np.float32).max):
        raise DataError(f"{path}: numbers must be below 3.4e38, to fit float32, got {largest:.2g} in {name}; scale them.")


def split_rows(x: np.ndarray, y: np.ndarray) -> list[Split]:
    """Training, validation and test splits of these examples: shuffled, always in the same order, and split 80 : 10 : 10."""
    order = np.random.default_rng(0).permutation(len(x))
    ends = [0, *(round(len(x) * sum(SHARES[: i + 1])) for i in range(len(SHARES)))]
    return [Split(x[order[a:b]], y[order[a:b]]) for a, b in zip(ends, ends[1:])]


class Moments(NamedTuple):
    """Mean and deviation of every column over the training examples: float64 (columns,), or () for a single target."""

    mean: np.ndarray
    deviation: np.ndarray


def moments(x: Any) -> Moments:
    """Mean and deviation of every column; a column that never varies gets deviation 1, so that it becomes 0."""
    x = np.asarray(x, np.float64)
    return Moments(x.mean(0), np.where(x.min(0) == x.max(0), 1.0, x.std(0)))


def scaled(x: Any, known: Moments) -> np.ndarray:
    """float32 rows minus the mean, divided by the deviation, as float32."""
    return ((x - known.mean) / known.deviation).astype(np.float32)


def standardise(data: Dataset, known: Moments | None = None) -> Dataset:
    """Give every feature mean 0 and deviation 1 over the training examples; one that never varies becomes 0.

    known: the `moments` to use, by default those of the training examples.
    """
    validated(data)
    known = moments(data.train.x) if known is None else known
    parts = {part: getattr(data, part) for part in PARTS}
    return data._replace(**{part: split._replace(x=scaled(split.x, known)) for part, split in parts.items()})


def standardise_targets(data: Dataset) -> Dataset:
    """Give every target mean 0 and deviation 1 over the training examples; R² does not change.

    If a network trained on them predicts z, the prediction in the original units is mean + deviation z, with the numbers of
    `moments(data.train.y)`.  Raises DataError for data with classes.
    """
    validated(data)
    if not data.regression:
        raise DataError(f"data set {data.name!r}: standardise_targets is for numbers, got classes; leave it out "
                        "(--standardise-targets).")  # fmt: skip
    known = moments(data.train.y)
    parts = {part: getattr(data, part) for part in PARTS}
    return data._replace(**{part: split._replace(y=scaled(split.y, known)) for part, split in parts.items()})
