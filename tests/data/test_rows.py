import numpy as np
import polars as pl
import pytest
from PIL import Image

from nnjax.data.catalogue import load
from nnjax.data.dataset import DataError
from nnjax.data.rows import Known, load_rows

X, Y = np.arange(60.0).reshape(20, 3), np.arange(20) % 2


def saved(folder, **arrays):
    np.savez(folder / "mine.npz", **arrays)
    return folder / "mine.npz"


def test_all_of_a_file_in_its_order_and_dtype_with_labels_or_without(tmp_path):
    found = load_rows(saved(tmp_path, x=X, y=Y))
    np.testing.assert_array_equal(found.x, X, strict=True)
    np.testing.assert_array_equal(found.y, Y, strict=True)
    assert found.part is None
    bare = load_rows(str(saved(tmp_path, x=X.astype(np.int16))))
    assert (bare.y, bare.x.dtype) == (None, np.int16)


def test_the_test_examples_of_a_file_that_is_split_of_a_data_set_and_on_demand(tmp_path):
    found = load_rows(saved(tmp_path, x_train=X, y_train=Y, x_test=X[:5], y_test=Y[:5]))
    assert (found.x.shape, found.y.shape, found.part) == ((5, 3), (5,), "test")
    digits = load("digits")
    np.testing.assert_array_equal(load_rows("digits").x, digits.test.x)
    np.testing.assert_array_equal(load_rows("digits", "validation").y, digits.validation.y)
    path = saved(tmp_path, x=X, y=Y)
    np.testing.assert_array_equal(load_rows(path, "test").x, load(path).test.x)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": X}, r"must hold x, or x_test, got features"),
        ({"x": X, "y": Y[:3]}, r"a whole number as label for each example, got y int64 \(3,\)"),
        ({"x": X, "y": Y + 0.5}, r"a whole number as label.*float64"),
        ({"x": X.astype(str)}, r"must be real numbers"),
    ],
)
def test_unusable_data_is_reported(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        load_rows(saved(tmp_path, **arrays))


def test_missing_or_invalid_files_are_reported(tmp_path):
    with pytest.raises(DataError, match=r"does not exist"):
        load_rows(tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"not a readable \.npz file"):
        load_rows(tmp_path / "bad.npz")
    (tmp_path / "a.txt").write_text("a text of more than twenty characters")
    with pytest.raises(DataError, match=r"is a text"):
        load_rows(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"part must be one of train, validation, test"):
        load_rows("digits", "tests")
    with pytest.raises(ValueError, match=r"unknown data set 'digist'"):
        load_rows("digist")


FRAME = pl.DataFrame({
    "a": np.arange(20), "b": np.arange(20) * 0.5, "kind": ["cat", "ant"] * 10, "price": np.arange(20) * 2.5,
})  # fmt: skip
CLASSES = Known((2,), features=("a", "b"), target="kind", names=("ant", "bee", "cat"))
NUMBERS = Known((2,), features=("a", "b"), target="price", outputs=1)


def written(folder, frame, suffix=".csv"):
    path = folder / f"mine{suffix}"
    frame.write_csv(path) if suffix == ".csv" else frame.write_parquet(path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_of_a_table_are_found_by_their_names(tmp_path, suffix):
    for frame in (FRAME, FRAME.select("price", "b", "kind", "a").with_columns(more=pl.lit("text"))):
        path = written(tmp_path, frame, suffix)
        found = load_rows(path, None, CLASSES)
        np.testing.assert_array_equal(found.x, np.stack([np.arange(20), np.arange(20) * 0.5], 1))
        np.testing.assert_array_equal(found.y, [2, 0] * 10)  # numbered as in the network: none is a bee
        np.testing.assert_array_equal(load_rows(path, None, NUMBERS).y, np.arange(20) * 2.5)
    for frame in (FRAME.drop("price"), FRAME.with_columns(price=pl.lit(None, pl.Float64))):
        assert load_rows(written(tmp_path, frame, suffix), None, NUMBERS).y is None


def test_parts_of_a_table_are_those_of_training(tmp_path):
    path = written(tmp_path, FRAME.drop("kind"))
    data = load(path)
    for part in ("train", "validation", "test"):
        found, split = load_rows(path, part, NUMBERS), getattr(data, part)
        np.testing.assert_array_equal(found.x, split.x)
        np.testing.assert_array_equal(found.y, split.y)


@pytest.mark.parametrize(
    ("frame", "known", "message"),
    [
        (FRAME.drop("a"), NUMBERS, r"no 'a' among the columns b, kind, price"),
        (FRAME.head(0), NUMBERS, r"got no row"),
        (FRAME.with_columns(a=pl.lit("x")), NUMBERS, r"'a' \(text, 'x' in row 1\); convert them to numbers"),
        (FRAME.with_columns(price=pl.lit("x")), NUMBERS, r"target 'price' must hold numbers"),
        (FRAME.with_columns(kind=pl.lit("dog")), CLASSES, r"'kind' must name classes of the network, ant, bee, cat, got 'dog'"),
        (FRAME, Known((2,)), r"is a table, but the network was not trained on one"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, frame, known, message):
    with pytest.raises(DataError, match=message):
        load_rows(written(tmp_path, frame), None, known)


def test_numbers_of_an_npz_file_are_targets_for_regression(tmp_path):
    path = saved(tmp_path, x=X, y=Y + 0.5)
    np.testing.assert_array_equal(load_rows(path, None, Known(outputs=1)).y, Y + 0.5)
    np.testing.assert_array_equal(load_rows(path, "test", Known(outputs=1)).y, load(path).test.y)
    whole = saved(tmp_path, x=X, y=Y)
    np.testing.assert_array_equal(load_rows(whole, "test", Known(outputs=1)).y, load(whole).test.y)
    with pytest.raises(DataError, match=r"expected 2 numbers as targets"):
        load_rows(whole, None, Known(outputs=2))
    with pytest.raises(DataError, match=r"predicts classes, got 1 numbers"):
        load_rows(saved(tmp_path, x=X, y=Y + 0.5), "test")


RGB = Known((5, 7, 3), 255, names=("ant", "bee", "cat"))


def images(folder, names=("cat", "ant"), mode="RGB", n=10):
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            Image.new(mode, (7, 5), i if mode == "L" else (i, len(name), 9)).save(folder / name / f"{i}.png")
    return folder


def test_images_of_a_folder_have_the_labels_of_the_network_or_none(tmp_path):
    found = load_rows(images(tmp_path / "mine"), None, RGB)
    assert (found.x.shape, found.x.dtype) == ((20, 5, 7, 3), np.uint8)
    assert found.files[:2] == ("ant/0.png", "ant/1.png")
    np.testing.assert_array_equal(found.y, [0] * 10 + [2] * 10)
    data = load(tmp_path / "mine")
    test = load_rows(tmp_path / "mine", "test", RGB)
    np.testing.assert_allclose(test.x.reshape(2, -1) / 255, data.test.x, rtol=1e-6)
    assert [test.files[i].split("/")[0] for i in range(2)] == [data.class_names[y] for y in data.test.y]
    bare = load_rows(tmp_path / "mine" / "cat", None, RGB)
    assert (bare.y, bare.files[3]) == (None, "3.png")
    grey = load_rows(images(tmp_path / "grey", mode="L"), None, RGB)
    np.testing.assert_array_equal(grey.x[7], np.full((5, 7, 3), 7))
    assert load_rows(tmp_path / "grey", None, RGB._replace(shape=(5, 7, 1))).x.shape == (20, 5, 7)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (RGB._replace(names=("ant", "dog")), r"classes of the network, ant, dog, got 'cat'"),
        (RGB._replace(shape=(7, 5, 3)), r"must be 7 x 5.*got 5 x 7"),
        (RGB._replace(shape=(5, 7)), r"must be grey.*ant/0\.png in colour"),
        (RGB._replace(scale=1), r"not trained on images"),
        (NUMBERS, r"not trained on images"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(tmp_path, known, message):
    with pytest.raises(DataError, match=message):
        load_rows(images(tmp_path, n=1), None, known)
