import math
import re

import jax
import numpy as np
import pytest

from nnjax.data.dataset import digest, grey_side
from nnjax.train import DataError, Dataset, Split, expand, load, load_files, standardise
from nnjax.train.recipe import make_recipe


def numbered(n: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.arange(n * 6, dtype=np.float64).reshape(n, 2, 3)
    return x, (np.arange(n) % 4).astype(np.int64)


def test_one_pair_of_arrays_is_shuffled_alike_and_split(tmp_path):
    x, y = numbered(50)
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    found = load(str(tmp_path / "mine.npz"))
    assert [s.x.shape for s in found[1:4]] == [(40, 6), (5, 6), (5, 6)]
    assert (found.name, found.classes) == ("mine.npz", 4)
    rows = np.concatenate([s.x for s in found[1:4]])
    labels = np.concatenate([s.y for s in found[1:4]])
    assert (rows.dtype, labels.dtype) == (np.float32, np.int32)
    assert not np.array_equal(rows[:, 0], np.sort(rows[:, 0]))
    np.testing.assert_array_equal(labels, (rows[:, 0] / 6).astype(int) % 4)  # each with its own label still
    assert sorted(rows[:, 0]) == list(range(0, 300, 6))
    np.testing.assert_array_equal(load_files(tmp_path / "mine.npz").train.x, found.train.x)


def test_flags_and_bytes_are_examples_too(tmp_path):
    flags = np.arange(60).reshape(30, 2) % 3 == 0
    for x in (flags, flags.astype(np.uint8)):
        np.savez(tmp_path / "mine.npz", x=x, y=np.arange(30, dtype=np.uint8) % 2)
        found = load_files(tmp_path / "mine.npz").train
        assert found.x.dtype == np.float32
        assert set(np.unique(found.x)) == {0.0, 1.0}


def test_arrays_that_are_split_are_left_as_they_are(tmp_path):
    x, y = numbered(12)
    np.savez(tmp_path / "mine.npz", x_train=x[:8], y_train=y[:8], x_test=x[8:], y_test=y[8:])
    found = load_files(tmp_path / "mine.npz")
    np.testing.assert_array_equal(found.train.x, x[:8].reshape(8, 6))
    np.testing.assert_array_equal(found.test.y, y[8:])
    assert found.validation.x.shape == (0, 6)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros(3)}, "must hold x and y, or x_train, y_train, x_test and y_test, got z"),
        (
            {"x": np.zeros((3, 2)), "y": np.zeros(2, int)},
            r"one label for each example, got x float64 \(3, 2\) and y int64 \(2,\)",
        ),
        ({"x": np.zeros((30, 2)), "y": np.zeros(30)}, "labels must be integers from 0, got y float64"),
        (
            {"x": np.zeros((30, 2)), "y": np.eye(30, 3)},
            r"got x float64 \(30, 2\) and y float64 \(30, 3\); give y the shape \(30,\)",
        ),
        (
            {"x": np.zeros((30, 2)), "y": np.arange(30) - 7},
            r"must number the classes from 0, got -7 in row 0 of y, of 30 examples",
        ),
        ({"x": np.zeros((30, 2)), "y": np.r_[np.zeros(29, int), 20_000_000]}, r"from 0, got 20000000 in row 29 of y"),
        ({"x": np.diag(np.r_[np.zeros(29), np.inf]), "y": np.zeros(30, int)}, r"in 1 rows of x, the first in row 29"),
        (
            {"x_train": np.full(9, np.nan), "y_train": np.zeros(9, int), "x_test": np.zeros(3), "y_test": np.zeros(3, int)},
            r"NaN or infinity in 9 rows of x_train, the first in row 0",
        ),
        ({"x": np.full((30, 2), "a"), "y": np.zeros(30, int)}, r"examples must be real numbers, got x <U1 \(30, 2\)"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0, int)}, "the training split is empty"),
        (
            {"x": np.array([{}], dtype=object), "y": np.zeros(1, int)},
            "cannot be read as an .npz file .*: x holds objects of Python",
        ),
        (
            {"x_train": np.zeros((9, 4)), "y_train": np.zeros(9, int), "x_test": np.zeros((3, 3)), "y_test": np.zeros(3, int)},
            r"examples must all have one shape, got \(4,\) in x_train and \(3,\) in x_test; save them alike",
        ),
        (
            {
                "x_train": np.zeros((9, 2, 6)),
                "y_train": np.zeros(9, int),
                "x_test": np.zeros((3, 3, 4)),
                "y_test": np.zeros(3, int),
            },
            r"one shape, got \(2, 6\) in x_train and \(3, 4\) in x_test",
        ),
        (
            {"x_train": np.zeros((9, 4)), "y_train": np.zeros(9, int), "x_test": np.zeros((3, 4)), "y_test": np.zeros(2, int)},
            r"got x_test float64 \(3, 4\) and y_test int64 \(2,\); give y_test the shape \(3,\)",
        ),
        (
            {
                "x_train": np.zeros((9, 4)),
                "y_train": np.zeros(9, int),
                "x_test": np.zeros((3, 4)),
                "y_test": np.zeros(3, int),
                "x_validation": np.zeros((3, 4)),
            },
            r"holds x_validation but no y_validation; save both",
        ),
        ({"x": np.zeros((9, 4))}, r"holds x but no y; save both"),
        ({"x": np.zeros((9, 0)), "y": np.zeros(9, int)}, r"at least one number, got examples of shape \(0,\)"),
        ({"x": np.full((9, 2), -1e300), "y": np.zeros(9, int)}, r"become float32, which ends at 3.4e38, got 1e\+300 in x"),
        ({"x": np.zeros((9, 2), complex), "y": np.zeros(9, int)}, r"examples must be real numbers, got x complex128"),
        ({"x": np.float64(3), "y": np.int64(0)}, r"one label for each example, got x float64 \(\) and y int64 \(\)"),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_files(tmp_path / "mine.npz")


def test_files_that_are_missing_or_damaged_are_refused(tmp_path):
    with pytest.raises(DataError, match="is not there; check the path"):
        load_files(tmp_path / "none.npz")
    np.savez(tmp_path / "mine.npz", x=np.zeros((100, 50)), y=np.zeros(100, int))
    whole = (tmp_path / "mine.npz").read_bytes()
    (tmp_path / "mine.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cannot be read as an \.npz file"):
        load_files(tmp_path / "mine.npz")


def test_images_are_shifted_by_one_pixel_in_four_directions():
    image = np.arange(1, 10, dtype=np.float32).reshape(1, 9)
    empty = Split(image[:0], np.zeros(0, np.int32))
    found = expand(Dataset("one", Split(image, np.array([3], np.int32)), empty, empty, 10))
    assert found.train.y.tolist() == [3] * 5
    assert [x.reshape(3, 3).astype(int).tolist() for x in found.train.x] == [
        [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        [[0, 0, 0], [1, 2, 3], [4, 5, 6]],
        [[4, 5, 6], [7, 8, 9], [0, 0, 0]],
        [[0, 1, 2], [0, 4, 5], [0, 7, 8]],
        [[2, 3, 0], [5, 6, 0], [8, 9, 0]],
    ]
    with pytest.raises(DataError, match=r"expand takes square grey images, got examples of shape \(8,\); make them"):
        expand(Dataset("one", Split(image[:, :8], np.array([3], np.int32)), empty, empty, 10))


def test_features_are_standardised_by_the_training_examples_alone():
    digits = load("digits")
    found = standardise(digits)
    varies = digits.train.x.std(0) > 0
    np.testing.assert_allclose(found.train.x.mean(0, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(found.train.x.std(0, dtype=np.float64)[varies], 1, atol=1e-5)
    assert (found.train.x[:, ~varies] == 0).all()
    assert varies.sum() < 64
    expected = (digits.test.x - digits.train.x.mean(0))[:, varies] / digits.train.x.std(0)[varies]
    np.testing.assert_allclose(found.test.x[:, varies], expected, rtol=1e-3, atol=1e-5)


def colour(n, shape):
    return {"x": np.random.default_rng(0).random((n, *shape)), "y": np.arange(n) % 2}


@pytest.mark.parametrize("shape", [(4, 4, 4), (2, 8), (2, 2, 4), (32, 2), (4, 4, 1, 1), (3, 3, 3, 3), (1, 4, 4)])
def test_examples_that_are_no_square_grey_images_are_not_taken_for_some(tmp_path, shape):
    np.savez(tmp_path / "mine.npz", **colour(20, shape))
    data = load_files(tmp_path / "mine.npz")
    assert data.shape == shape
    told = r"takes square grey images, got examples of shape " + re.escape(str(shape))
    with pytest.raises(DataError, match=f"expand {told}"):
        expand(data)
    with pytest.raises(DataError, match=f"the model lenet {told}"):
        make_recipe("lenet", data, hidden=(3,), channels=(2,), key=jax.random.key(0))
    assert make_recipe("mlp", data, hidden=(3,), key=jax.random.key(0)).sizes == str([math.prod(shape), 3, 2])


@pytest.mark.parametrize("shape", [(6, 6), (6, 6, 1), (36,)])
def test_square_grey_images_are_taken_in_any_of_their_shapes(tmp_path, shape):
    arrays = colour(20, shape)
    np.savez(tmp_path / "mine.npz", **arrays)
    data = load_files(tmp_path / "mine.npz")
    assert grey_side("expand", data) == 6
    more = expand(data)
    assert more.train.x.shape == (80, 36)
    assert more.shape == data.shape == standardise(data).shape
    np.testing.assert_array_equal(more.train.x[:16], data.train.x)
    np.testing.assert_array_equal(more.train.x[16:32].reshape(16, 6, 6)[:, 1:], data.train.x.reshape(16, 6, 6)[:, :-1])
    assert make_recipe("lenet", data, hidden=(3,), channels=(2,), key=jax.random.key(0)).sizes.startswith("6x6")


def test_a_data_set_made_by_hand_is_told_its_shape_or_not():
    part = Split(np.zeros((4, 36), np.float32), np.zeros(4, np.int32))
    data = Dataset("mine", part, part, part, 2)
    assert data.shape is None
    assert grey_side("expand", data) == 6
    with pytest.raises(DataError, match=r"got examples of shape \(3, 12\)"):
        expand(data._replace(shape=(3, 12)))
    images = Split(np.zeros((4, 6, 6, 3), np.float32), part.y)
    with pytest.raises(DataError, match=r"got examples of shape \(6, 6, 3\)"):
        expand(data._replace(train=images))
    assert digest(data) == digest(data._replace(shape=(6, 6), name="other"))  # as of runs saved before
    assert digest(data) != digest(data._replace(classes=3))


def test_what_is_in_a_file_beside_is_not_read(tmp_path):
    np.savez(tmp_path / "mine.npz", **colour(20, (3,)), notes=np.array([{}], object))
    assert load_files(tmp_path / "mine.npz").train.x.shape == (16, 3)
