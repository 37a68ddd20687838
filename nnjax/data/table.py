"""Tables, .csv and .parquet, read by polars: columns of numbers, and one column to predict."""

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import unknown_name
from .dataset import DataError, Dataset, Split, expect_numbers, split_rows, validated
from .files import expect_path

TABLES = (".csv", ".parquet")


def load_table(path: str | Path, target: str | None = None, regression: bool = False) -> Dataset:
    """The data set in a table. All columns are features (numbers, or true and false) except the target, by default the last.

    A target of text, of true and false, or of whole numbers holds classes, in the order of their names or values; other
    numbers are predicted as they are; regression: whole numbers too.  Rows are shuffled, always in the same order, and split
    80 : 10 : 10.
    Raises DataError for a file that cannot be read, for a missing value (it names column and row; the first row under the
    header is row 1), and for features that are not numbers.
    """
    path = expect_path("load_files", path)
    frame = _read(path)
    if frame.width < 2 or not frame.height:
        separated = "; are its columns separated by commas?" if path.suffix.lower() == ".csv" and frame.width == 1 else "."
        raise DataError(f"{path}: a table needs rows, a column of features and one of targets, got {frame.height} rows of "
                        f"{frame.width} columns{separated}")  # fmt: skip
    remedy = "remove them, or convert them to numbers, with polars: table.drop(...) or table.to_dummies(...)"
    remedy += f"; or make one of them the target (--target), which is now {frame.columns[-1]!r}" if target is None else ""
    chosen: str = frame.columns[-1] if target is None else target
    if chosen not in frame.columns:
        raise DataError(f"{path}: {unknown_name('column', chosen, frame.columns)}")
    features = frame.drop(chosen)
    x = _features(path, features, remedy)
    _expect_whole(path, chosen, frame[chosen])
    y, names = _targets(path, frame[chosen], regression)
    parts = [Split(np.ascontiguousarray(s.x, np.float32), s.y) for s in split_rows(x, y)]
    found = Dataset(path.name, *parts, classes=len(names), shape=(x.shape[1],), class_names=names or None,
                    features=tuple(features.columns), targets=(chosen,))  # fmt: skip
    return validated(found)


def table_rows(
    path: Path, features: tuple[str, ...], target: str | None, names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray | None]:
    """(float64 (n, features), the column of that name): classes numbered as in `names`, or numbers if there are none.

    Columns are found by name; others are ignored. A missing or entirely empty target is None.
    Raises DataError for a missing feature, for values that `load_table` refuses, and for unknown classes.
    """
    frame = _read(path)
    missing = [repr(name) for name in features if name not in frame.columns]
    if missing or not frame.height:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        came = f"no {', '.join(missing[:5])}{more} among the columns {', '.join(frame.columns[:8])}" if missing else "no rows"
        raise DataError(f"{path}: a table must have the features that the network was trained on, got {came}; add them.")
    x = _features(path, frame.select(features), "convert them to numbers, as in training")
    if target is None or target not in frame.columns or frame[target].null_count() == frame.height:
        return x, None
    _expect_whole(path, target, frame[target])
    return x, _known_classes(path, frame[target], names) if names else _floats(path, frame[target])


def _features(path: Path, features: Any, remedy: str) -> np.ndarray:
    """float64 (rows, columns)."""
    _expect_numeric(path, features, remedy)
    for name in features.columns:
        _expect_whole(path, name, features[name])
    x = features.cast(_polars().Float64).to_numpy()
    for i, name in enumerate(features.columns):
        expect_numbers(path, f"column {name!r}", x[:, i], first=1)
    return x


def _floats(path: Path, column: Any) -> np.ndarray:
    if not column.dtype.is_numeric():
        raise DataError(f"{path}: the target {column.name!r} must hold numbers, as in training, got {_strange(column)}; "
                        "correct it, or remove the column.")  # fmt: skip
    y = column.cast(_polars().Float64).to_numpy()
    expect_numbers(path, f"column {column.name!r}", y, first=1)
    return y


def _known_classes(path: Path, column: Any, names: tuple[str, ...]) -> np.ndarray:
    place = {name: i for i, name in enumerate(names)}
    values = list(map(str, column.to_list()))
    wrong = next((i for i, value in enumerate(values) if value not in place), None)
    if wrong is not None:
        raise DataError(f"{path}: the target {column.name!r} must name classes of the network, {', '.join(names[:8])}, got "
                        f"{values[wrong]!r} in row {wrong + 1}; correct it, or remove the column.")  # fmt: skip
    return np.array([place[value] for value in values], np.int32)


def _polars() -> Any:
    try:
        import polars
    except ImportError:
        raise DataError("tables need polars: python -m pip install 'nnjax[tables]'.") from None
    return polars


def _read(path: Path) -> Any:
    polars = _polars()
    try:
        if path.suffix.lower() == ".parquet":
            return polars.read_parquet(path)
        return polars.read_csv(path, infer_schema_length=None)  # from all rows: the last may be the first with a fraction
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path of the table.") from None
    except (OSError, polars.exceptions.PolarsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} cannot be read as a table: {reason.rstrip('.')}; check the file.") from None


def _expect_numeric(path: Path, features: Any, remedy: str) -> None:
    wrong = {name: kind for name, kind in features.schema.items() if not (kind.is_numeric() or kind == _polars().Boolean)}
    if not wrong:
        return
    told = [f"{name!r} ({_strange(features[name])})" for name in wrong]
    more = f" and {len(told) - 5} more" if len(told) > 5 else ""
    raise DataError(f"{path}: features must be numbers, got the columns {', '.join(told[:5])}{more}; {remedy}.")


def _strange(column: Any) -> str:
    """What a column that does not hold numbers holds, and the first text in it that is not a number."""
    polars = _polars()
    if column.dtype != polars.String:
        return str(column.dtype).lower()
    missed = column.is_not_null() & column.str.strip_chars().cast(polars.Float64, strict=False).is_null()
    if not missed.any():
        return "text"
    row = int(missed.arg_max())
    return f"text, {column[row][:20]!r} in row {row + 1}"


def _expect_whole(path: Path, name: str, column: Any) -> None:
    if column.null_count():
        row = int(column.is_null().arg_max()) + 1
        more = f", and in {column.null_count() - 1} more rows" if column.null_count() > 1 else ""
        raise DataError(f"{path}: column {name!r} has no value in row {row}{more}; remove these rows, or fill them, with "
                        "polars: table.drop_nulls() or table.fill_null(0).")  # fmt: skip


def _targets(path: Path, column: Any, regression: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    """(y, names of classes); numbers to predict have no names."""
    polars = _polars()
    kind, name = column.dtype, column.name
    if kind.is_float() or kind.is_decimal() or (regression and kind.is_integer()):
        return _floats(path, column).astype(np.float32), ()
    text = kind in (polars.String, polars.Categorical, polars.Enum)
    if regression or not (text or kind.is_integer() or kind == polars.Boolean):
        wanted = "numbers" if regression else "numbers or names of classes"
        raise DataError(f"{path}: the target {name!r} must hold {wanted}, got {str(kind).lower()}; name another column with "
                        "target (--target).")  # fmt: skip
    values = column.cast(polars.String) if text else column
    known = values.unique().sort().to_list()
    most = max(20, len(column) // 4)
    if len(known) < 2 or len(known) > most:
        number = f"{len(known)} different values in {len(column)} rows" if len(known) > 1 else f"{known[0]!r} in every row"
        other = " To predict numbers, add regression (--regression)." if kind.is_integer() and len(known) > 1 else ""
        raise DataError(f"{path}: the target {name!r} must name classes, got {number}; name another column with target "
                                f"(--target).{other}")  # fmt: skip
    place = {value: i for i, value in enumerate(known)}
    return np.array([place[value] for value in values.to_list()], np.int32), tuple(map(str, known))
