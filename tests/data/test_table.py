import numpy as np
import polars as pl
import pytest

from nnjax.train import DataError, load, load_files

N = 60
KINDS = ("cat", "dog", "ant")


def table() -> pl.DataFrame:
    return pl.DataFrame({
        "kind": [KINDS[i % 3] for i in range(N)],
        "size": [float(i) for i in range(N)],
        "legs": [i % 3 + 2 for i in range(N)],
        "tame": [i % 2 == 0 for i in range(N)],
        "price": [2.5 * i + 0.1 for i in range(N)],
    })  # fmt: skip


def written(folder, frame, suffix=".parquet"):
    path = folder / f"mine{suffix}"
    frame.write_csv(path) if suffix == ".csv" else frame.write_parquet(path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_last_column_is_the_target_and_the_rest_are_features(tmp_path, suffix):
    found = load(written(tmp_path, table().drop("kind"), suffix))
    assert found.regression
    assert (found.features, found.targets, found.class_names) == (("size", "legs", "tame"), ("price",), None)
    assert [s.x.shape for s in found[1:4]] == [(48, 3), (6, 3), (6, 3)]
    for x, y in found[1:4]:
        assert (x.dtype, y.dtype) == (np.float32, np.float32)
        np.testing.assert_allclose(y, 2.5 * x[:, 0] + 0.1, rtol=1e-6)  # each still with its own target
        np.testing.assert_array_equal(x[:, 2], x[:, 0] % 2 == 0)
    assert load_files(written(tmp_path, table().drop("kind"), suffix)).train.x[:, 0].tolist() != sorted(found.train.x[:, 0])


def test_rows_are_split_like_those_of_an_npz_file(tmp_path):
    frame = table().drop("kind")
    np.savez(tmp_path / "mine.npz", x=frame.drop("price").cast(pl.Float64).to_numpy(), y=frame["price"].to_numpy())
    for a, b in zip(load(tmp_path / "mine.npz")[1:4], load(written(tmp_path, frame))[1:4]):
        np.testing.assert_array_equal(a.x, b.x)
        np.testing.assert_array_equal(a.y, b.y)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_classes_have_the_names_of_the_file_in_order(tmp_path, suffix):
    found = load_files(written(tmp_path, table(), suffix), target="kind")
    assert (found.classes, found.class_names) == (3, ("ant", "cat", "dog"))
    for x, y in found[1:4]:
        assert y.dtype == np.int32
        assert [found.class_names[i] for i in y] == [KINDS[int(size) % 3] for size in x[:, 0]]


def test_whole_numbers_and_truths_are_classes_by_value_or_numbers_where_asked(tmp_path):
    path = written(tmp_path, table().drop("kind"))
    legs = load_files(path, target="legs")
    assert legs.class_names == ("2", "3", "4")
    np.testing.assert_array_equal(legs.train.y, legs.train.x[:, 0] % 3)
    assert load_files(path, target="tame").class_names == ("False", "True")
    found = load_files(path, target="legs", regression=True)
    assert found.regression
    assert set(found.train.y) == {2.0, 3.0, 4.0}


def test_other_kinds_of_numbers_and_of_text_are_understood(tmp_path):
    frame = table().with_columns(pl.col("kind").cast(pl.Categorical), pl.col("size").cast(pl.Decimal(10, 2)),
                                 pl.col("legs").cast(pl.UInt8))  # fmt: skip
    found = load_files(written(tmp_path, frame), target="kind")
    assert found.class_names == ("ant", "cat", "dog")
    assert found.train.x.dtype == np.float32


def at(frame: pl.DataFrame, column: str, row: int, value) -> pl.DataFrame:
    return frame.with_columns(
        pl.when(pl.int_range(pl.len()) == row - 1).then(pl.lit(value)).otherwise(pl.col(column)).alias(column)
    )


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (table(), {}, "features must be numbers, got the columns 'kind' .*remove them.*now 'price'"),
        (
            at(table().drop("kind"), "size", 7, None),
            {},
            "column 'size' has no value in row 7",
        ),
        (at(table(), "kind", 3, None), {"target": "kind"}, "column 'kind' has no value in row 3"),
        (
            at(table().drop("kind"), "size", 7, float("nan")),
            {},
            "NaN or infinity in 1 rows of column 'size', the first in row 7",
        ),
        (at(table().drop("kind"), "price", 2, float("inf")), {}, "NaN or infinity in 1 rows of column 'price'"),
        (at(table().drop("kind"), "size", 7, 1e300), {}, "3.4e38, .* got 1e.300 in column 'size'"),
        (table(), {"target": "prise"}, "unknown column 'prise'.*did you mean 'price'"),
        (table().select("price"), {}, "got 60 rows of 1 columns"),
        (table().head(0), {}, "got 0 rows of 5 columns"),
        (
            table().drop("kind").with_columns(when=pl.lit("2020-01-01").str.to_date()),
            {},
            "target 'when' must hold numbers or names of classes, got date",
        ),
        (table(), {"target": "kind", "regression": True}, "target 'kind' must hold numbers, got str"),
        (table().drop("kind").with_columns(n=pl.int_range(pl.len())), {}, "got 60 different values in 60 rows.*regression"),
        (table().drop("kind").with_columns(n=pl.lit(1)), {}, "must name classes, got 1 in every row"),
        (table().drop("kind").with_columns(n=pl.lit(1.5)), {}, "target 'n' is 1.5 in every example"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(tmp_path, frame, options, message):
    with pytest.raises(DataError, match=message):
        load_files(written(tmp_path, frame), **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b,y\n1,2,0.5\n3,NA,0.7\n", "'b' .text, 'NA' in row 2."),
        ("a;b;y\n1;2;0.5\n", "are its columns separated by commas"),
        ("", "cannot be read as a table"),
        ("a,b\n1,2,3,4\n", "cannot be read as a table"),
    ],
)
def test_csv_files_that_cannot_be_used_are_refused(tmp_path, content, message):
    (tmp_path / "mine.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        load_files(tmp_path / "mine.csv")


def test_files_that_are_missing_or_not_tables_are_refused(tmp_path):
    for suffix in (".csv", ".parquet"):
        with pytest.raises(DataError, match="does not exist; check the path of the table"):
            load_files(tmp_path / f"none{suffix}")
    (tmp_path / "mine.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match="cannot be read as a table"):
        load_files(tmp_path / "mine.parquet")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="cannot be read as a table"):
        load_files(tmp_path / "folder.csv")


def test_whole_numbers_may_be_followed_by_fractions(tmp_path):
    rows = "".join(f"{i},{i % 7}\n" for i in range(2000))
    (tmp_path / "mine.csv").write_text(f"a,y\n{rows}3,0.5\n")
    assert load_files(tmp_path / "mine.csv").regression
