"""Raw examples to be classified, as a file has them: not shuffled, split or scaled, and with labels only if it has some."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import describe
from .catalogue import load_images
from .dataset import PARTS, DataError
from .files import expect_path
from .npz import read_npz


class Raw(NamedTuple):
    """x: (examples, ...), of the dtype of the file; y: the labels (examples,), or None; part: which, None for all of a file."""

    x: Any
    y: Any
    part: str | None


def load_rows(name: str | Path, part: str | None = None) -> Raw:
    """The examples of a file, or of a data set of this name.

    part: train, validation or test, as `load` splits them.  By default of an .npz file all of x, or x_test where it holds no x,
    with y or y_test if that is there; of anything else the test examples.
    Raises DataError for what cannot be read, holds no examples, or is a text.
    """
    path = expect_path("load_rows", name)
    if part is None and path.suffix.lower() == ".npz":
        return _of_file(path)
    part = "test" if part is None else part
    if part not in PARTS:
        raise DataError(f"load_rows: part must be one of {', '.join(PARTS)}, got {part!r}; leave it out for all of a file.")
    split = getattr(load_images(name), part)
    return Raw(split.x, split.y, part)


def _of_file(path: Path) -> Raw:
    try:
        arrays, held = read_npz(path, ["x", "y", "x_test", "y_test"])
    except FileNotFoundError:
        raise DataError(f"{path} is not there; check the path of the .npz file.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as an .npz file of plain arrays: {error}.") from None
    end = "" if "x" in arrays else "_test"
    x, y = arrays.get(f"x{end}"), arrays.get(f"y{end}")
    if x is None:
        raise DataError(f"{path} must hold x, or x_test, got {', '.join(sorted(held)) or 'nothing'}; save the examples as x.")
    if y is not None and (x.ndim < 1 or y.shape != x.shape[:1] or not np.issubdtype(y.dtype, np.integer)):
        raise DataError(
            f"{path}: expected a whole number as label for each example, got y{end} {describe(y)} and x{end} {describe(x)}; "
            "correct the labels, or leave them out."
        )
    if x.dtype.kind not in "biuf":
        raise DataError(f"{path}: examples must be real numbers, got x{end} {describe(x)}; convert them.")
    return Raw(x, y, "test" if end else None)
