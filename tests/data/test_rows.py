import numpy as np
import pytest

from nnjax.data.catalogue import load
from nnjax.data.dataset import DataError
from nnjax.data.rows import load_rows

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
def test_what_cannot_be_used_is_said(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        load_rows(saved(tmp_path, **arrays))


def test_what_is_not_there_or_no_such_file_is_said(tmp_path):
    with pytest.raises(DataError, match=r"is not there"):
        load_rows(tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"cannot be read as an \.npz file"):
        load_rows(tmp_path / "bad.npz")
    (tmp_path / "a.txt").write_text("a text of more than twenty characters")
    with pytest.raises(DataError, match=r"is a text"):
        load_rows(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"part must be one of train, validation, test"):
        load_rows("digits", "tests")
    with pytest.raises(ValueError, match=r"unknown data set 'digist'"):
        load_rows("digist")
