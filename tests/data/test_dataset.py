import numpy as np
import pytest

from nnjax.data.dataset import digest, moments, validated
from nnjax.train import DataError, Dataset, Split, load, load_files, standardise, standardise_targets


def numbered(n: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.arange(n * 6, dtype=np.float64).reshape(n, 2, 3)
    return x, (np.arange(n) % 4).astype(np.int64)


def test_one_pair_of_arrays_is_shuffled_together_and_split(tmp_path):
    x, y = numbered(50)
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    found = load(str(tmp_path / "mine.npz"))
    assert [s.x.shape for s in found[1:4]] == [(40, 6), (5, 6), (5, 6)]
    assert (found.name, found.classes) == ("mine.npz", 4)
    rows = np.concatenate([s.x for s in found[1:4]])
    labels = np.concatenate([s.y for s in found[1:4]])
    assert (rows.dtype, labels.dtype) == (np.float32, np.int32)
    assert not np.array_equal(rows[:, 0], np.sort(rows[:, 0]))
    np.testing.assert_array_equal(labels, (rows[:, 0] / 6).astype(int) % 4)  # each still with its own label
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
        ({"x": np.zeros((30, 2)), "y": np.full(30, "a")}, "integers from 0, which are classes, or floats, .* got y <U1"),
        ({"x": np.zeros((30, 2)), "y": np.zeros(30)}, "target 0 is 0 in every example.* R² is not defined"),
        ({"x": np.zeros((30, 2)), "y": np.eye(3)[np.arange(30) % 3]}, r"one-hot.* save y\.argmax\(1\)"),
        ({"x": np.zeros((30, 2)), "y": np.zeros((30, 3), int)}, r"give y the shape \(30,\)"),
        ({"x": np.zeros((30, 2)), "y": np.zeros((30, 3, 1))}, r"give y the shape \(30,\)"),
        ({"x": np.zeros((30, 2)), "y": np.r_[np.zeros(29), np.nan]}, "in 1 rows of y, the first in row 29"),
        ({"x": np.zeros((30, 2)), "y": np.r_[np.zeros(29), 1e300]}, r"3.4e38, .* got 1e\+300 in y"),
        (
            {"x_train": np.zeros((9, 4)), "y_train": np.arange(9), "x_test": np.zeros((3, 4)), "y_test": np.arange(3.0)},
            r"integers in all parts, or floats in all, got int64 \(9,\), float64 \(3,\)",
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
            "npz file .*: x holds Python objects",
        ),
        (
            {"x_train": np.zeros((9, 4)), "y_train": np.zeros(9, int), "x_test": np.zeros((3, 3)), "y_test": np.zeros(3, int)},
            r"same shape, got \(4,\) in x_train and \(3,\) in x_test",
        ),
        (
            {
                "x_train": np.zeros((9, 2, 6)),
                "y_train": np.zeros(9, int),
                "x_test": np.zeros((3, 3, 4)),
                "y_test": np.zeros(3, int),
            },
            r"same shape, got \(2, 6\) in x_train and \(3, 4\) in x_test",
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
            r"x_validation and y_validation together, got only x_validation",
        ),
        ({"x": np.zeros((9, 4))}, r"x and y together, got only x"),
        ({"x": np.zeros((9, 0)), "y": np.zeros(9, int)}, r"at least one number, got examples of shape \(0,\)"),
        ({"x": np.full((9, 2), -1e300), "y": np.zeros(9, int)}, r"below 3.4e38, to fit float32, got 1e\+300 in x"),
        ({"x": np.zeros((9, 2), complex), "y": np.zeros(9, int)}, r"examples must be real numbers, got x complex128"),
        ({"x": np.float64(3), "y": np.int64(0)}, r"one label for each example, got x float64 \(\) and y int64 \(\)"),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_files(tmp_path / "mine.npz")


def test_files_that_are_missing_or_damaged_are_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist; check the path"):
        load_files(tmp_path / "none.npz")
    np.savez(tmp_path / "mine.npz", x=np.zeros((100, 50)), y=np.zeros(100, int))
    whole = (tmp_path / "mine.npz").read_bytes()
    (tmp_path / "mine.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"not a readable \.npz file"):
        load_files(tmp_path / "mine.npz")


def test_features_are_standardised_by_the_training_examples_only():
    digits = load("digits")
    found = standardise(digits)
    varies = digits.train.x.std(0) > 0
    np.testing.assert_allclose(found.train.x.mean(0, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(found.train.x.std(0, dtype=np.float64)[varies], 1, atol=1e-5)
    assert (found.train.x[:, ~varies] == 0).all()
    assert varies.sum() < 64
    expected = (digits.test.x - digits.train.x.mean(0))[:, varies] / digits.train.x.std(0)[varies]
    np.testing.assert_allclose(found.test.x[:, varies], expected, rtol=1e-3, atol=1e-5)


def test_a_data_set_is_known_by_its_content_not_its_name():
    part = Split(np.zeros((4, 36), np.float32), np.zeros(4, np.int32))
    data = Dataset("mine", part, part, part, 2)
    assert digest(data) == digest(data._replace(shape=(6, 6), name="other", class_names=("a", "b"), features=("x",) * 36))
    assert digest(data) != digest(data._replace(classes=3))


def test_other_arrays_in_a_file_are_not_read(tmp_path):
    x = np.random.default_rng(0).random((20, 3))
    np.savez(tmp_path / "mine.npz", x=x, y=np.arange(20) % 2, notes=np.array([{}], object))
    assert load_files(tmp_path / "mine.npz").train.x.shape == (16, 3)


def numbers(n: int = 20, targets: tuple[int, ...] = ()) -> Dataset:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 3)).astype(np.float32), rng.normal(5.0, 1000.0, size=(n, *targets)).astype(np.float32)
    return Dataset("mine", Split(x, y), Split(x[:3], y[:3]), Split(x[3:8], y[3:8]))


@pytest.mark.parametrize("targets", [(), (1,), (2,)])
def test_float_targets_are_numbers_to_predict(tmp_path, targets):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", x=rng.normal(size=(50, 4)), y=rng.normal(size=(50, *targets)))
    found = load_files(tmp_path / "mine.npz")
    assert found.regression
    assert (found.classes, found.outputs) == (0, *(targets or (1,)))
    assert [s.y.shape for s in found[1:4]] == [(40, *targets), (5, *targets), (5, *targets)]
    assert found.train.y.dtype == np.float32


def test_whole_numbers_are_classes_unless_regression_is_asked_for(tmp_path):
    np.savez(tmp_path / "mine.npz", x=np.zeros((50, 4)), y=np.arange(50))
    assert load_files(tmp_path / "mine.npz").classes == 50
    found = load(tmp_path / "mine.npz", regression=True)
    assert found.regression
    assert sorted(np.concatenate([s.y for s in found[1:4]])) == list(range(50))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 3}, r"labels must be integers in 0 \.\.\. 2, got float32.*numbers, set classes to 0"),
        ({"train": Split(np.zeros((4, 3), np.float32), np.ones(4, np.float32))}, "target 0 is 1 in every example"),
        ({"train": Split(np.zeros((4, 3), np.float32), np.arange(4))}, "classes must be the number of classes, got 0"),
        ({"test": Split(np.zeros((4, 3), np.float32), np.zeros((4, 2), np.float32))}, r"a row of equal length in every split"),
        ({"test": Split(np.zeros((2, 3), np.float32), np.array([0.0, np.inf]))}, "NaN or infinity in 1 examples.* row 1"),
    ],
)
def test_targets_that_cannot_be_predicted_are_refused(change, message):
    validated(numbers())
    with pytest.raises(DataError, match=message):
        validated(numbers()._replace(**change))
    two = numbers(targets=(2,))
    two.train.y[:, 1] = 7
    with pytest.raises(DataError, match="target 'price' is 7 in every example"):
        validated(two._replace(targets=("size", "price")))


@pytest.mark.parametrize("targets", [(), (2,)])
def test_targets_are_standardised_by_the_training_examples_and_come_back(targets):
    data = numbers(200, targets)
    found = standardise_targets(data)
    np.testing.assert_allclose(found.train.y.mean(0, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(found.train.y.std(0, dtype=np.float64), 1, atol=1e-5)
    mean, deviation = moments(data.train.y)
    np.testing.assert_allclose(mean + deviation * found.test.y, data.test.y, rtol=1e-4, atol=1e-2)
    np.testing.assert_array_equal(found.train.x, data.train.x)
    with pytest.raises(DataError, match="standardise_targets is for numbers, got classes"):
        standardise_targets(load("digits"))
