"""Raw examples for a trained network, as in the file: not shuffled, split or scaled, and with targets if there are some."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import describe
from .catalogue import SCALES, load_images
from .dataset import PARTS, DataError, expect_numbers, split_rows
from .files import expect_path
from .folder import folder_rows
from .npz import read_npz
from .table import TABLES, table_rows


class Known(NamedTuple):
    """What a network was trained on, so that other data are read in the same way.

    shape: of an example; scale: the divisor of pixels; features: names of the columns of a table; target: the column of a table
    that is predicted; names: of the classes, if they have some; outputs: how many numbers are predicted, 0 for classes.
    """

    shape: tuple[int, ...] = ()
    scale: int = 1
    features: tuple[str, ...] = ()
    target: str | None = None
    names: tuple[str, ...] = ()
    outputs: int = 0


ANY = Known()


class Raw(NamedTuple):
    """x: (examples, ...), with the dtype of the file; y: the labels (examples,), or numbers (examples,) or (examples, targets),
    or None; part: which split, None for all of a file; files: the file of each example, for a folder."""

    x: Any
    y: Any
    part: str | None
    files: tuple[str, ...] = ()


def load_rows(name: str | Path, part: str | None = None, known: Known = ANY) -> Raw:
    """The examples of a file, of a folder of images, or of a data set of this name.

    part: train, validation or test, as `load` splits them.  The default is all of x of an .npz file, or x_test if it holds no
    x, with y or y_test if it is there; all of a table or folder; for anything else the test examples.  A table must have the
    columns `known.features`, in any order; a folder has a subfolder for each class, or images without labels.
    Raises DataError for data that cannot be read, holds no examples, is a text, or is of another kind than the network's.
    """
    path = expect_path("load_rows", name)
    if part is not None and part not in PARTS:
        raise DataError(f"load_rows: part must be one of {', '.join(PARTS)}, got {part!r}; leave it out for all of a file.")
    suffix = path.suffix.lower()
    if suffix in TABLES:
        return _part(_of_table(path, known), part)
    if path.is_dir() and str(name) not in SCALES:
        return _part(_of_folder(path, known), part)
    if part is None and suffix == ".npz":
        return _of_file(path, known.outputs)
    part = "test" if part is None else part
    found = load_images(name, bool(known.outputs) and suffix == ".npz")
    if found.regression != bool(known.outputs) or (found.regression and found.outputs != known.outputs):
        kinds = [f"{n} numbers" if n else "classes" for n in (known.outputs, found.outputs if found.regression else 0)]
        raise DataError(f"{name}: the network predicts {kinds[0]}, got {kinds[1]}; name data like those of its training.")
    split = getattr(found, part)
    return Raw(split.x, split.y, part)


def _part(raw: Raw, part: str | None) -> Raw:
    if part is None:
        return raw
    rows = split_rows(np.arange(len(raw.x)), np.arange(len(raw.x)))[PARTS.index(part)].x
    y = None if raw.y is None else raw.y[rows]
    return Raw(raw.x[rows], y, part, tuple(raw.files[i] for i in rows) if raw.files else ())


def _of_table(path: Path, known: Known) -> Raw:
    if not known.features:
        raise DataError(f"{path} is a table, but the network was not trained on one, so its features have no names; save "
                        "the examples as x of an .npz file.")  # fmt: skip
    return Raw(*table_rows(path, known.features, known.target, known.names), None)


def _of_folder(path: Path, known: Known) -> Raw:
    if len(known.shape) not in (2, 3) or known.scale != 255:
        raise DataError(f"{path} is a folder of images, but the network was not trained on images with pixels in "
                        "0 ... 255; save the examples as x of an .npz file, like those of its training.")  # fmt: skip
    x, y, files = folder_rows(path, known.shape, known.names)
    return Raw(x, y, None, files)


def _of_file(path: Path, outputs: int) -> Raw:
    try:
        arrays, held = read_npz(path, ["x", "y", "x_test", "y_test"])
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path of the .npz file.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable .npz file of plain arrays: {error}.") from None
    end = "" if "x" in arrays else "_test"
    x, y = arrays.get(f"x{end}"), arrays.get(f"y{end}")
    if x is None:
        raise DataError(f"{path} must hold x, or x_test, got {', '.join(sorted(held)) or 'nothing'}; save the examples as x.")
    if y is not None:
        _expect_targets(path, x, y, end, outputs)
    if x.dtype.kind not in "biuf":
        raise DataError(f"{path}: examples must be real numbers, got x{end} {describe(x)}; convert them.")
    return Raw(x, y, "test" if end else None)


def _expect_targets(path: Path, x: np.ndarray, y: np.ndarray, end: str, outputs: int) -> None:
    alike = x.ndim > 0 and y.shape[: 1 if outputs else None] == x.shape[:1]
    if not alike or y.dtype.kind not in ("iuf" if outputs else "iu") or (outputs and math.prod(y.shape[1:]) != outputs):
        numbers = "a number as target" if outputs == 1 else f"{outputs} numbers as targets"
        wanted = numbers if outputs else "a whole number as label"
        raise DataError(
            f"{path}: expected {wanted} for each example, got y{end} {describe(y)} and x{end} {describe(x)}; correct "
            f"{'them' if outputs else 'the labels'}, or leave them out."
        )
    expect_numbers(path, f"y{end}", y)
