import numpy as np
import pytest

from nnjax.data.words import kind, notes
from nnjax.train import Dataset, Split, load, standardise_targets


def numbers(y, test=None) -> Dataset:
    y = np.asarray(y, np.float32)
    part = Split(np.zeros((len(y), 2), np.float32), y)
    test = y if test is None else np.asarray(test, np.float32)
    return Dataset("mine", part, part, Split(np.zeros((len(test), 2), np.float32), test))


def test_what_is_predicted_is_described_if_it_has_names():
    digits = load("digits")
    assert (kind(digits), notes(digits)) == ("", [])
    assert kind(digits._replace(class_names=tuple(map(str, range(10))))) == "10 classes: 0, 1, 2, 3, 4, 5, 6, 7, and 2 more"
    assert kind(digits._replace(class_names=("a",) * 10, targets=("digit",))).startswith("10 classes of 'digit': a")
    assert kind(numbers([0.5, 1.5])) == "regression of one number"
    assert kind(numbers([0.5, 1.5])._replace(targets=("price",))) == "regression of one number 'price'"
    assert kind(numbers(np.eye(3, 2))) == "regression of 2 numbers"


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.linspace(0, 5000, 50), "targets reach 5000; --standardise-targets"),
        (np.linspace(0, 0.01, 50), "targets vary by as little as 0.0029; --standardise-targets"),
        (np.stack([np.linspace(0, 9.9, 50), np.linspace(0, 0.5, 50)], 1), "targets vary by 0.15 to 2.9"),
        (np.arange(50) % 3, "the targets are 3 whole numbers; if they are classes"),
    ],
)
def test_targets_that_train_badly_get_a_note(y, words):
    (found,) = notes(numbers(y))
    assert words in found
    if "standardise" in words:
        assert notes(standardise_targets(numbers(y))) == []


def test_undefined_r2_is_reported():
    assert notes(numbers(np.linspace(0, 1, 50), [0.5, 0.6])) == []
    (found,) = notes(numbers(np.linspace(0, 1, 50), [0.5, 0.5]))
    assert "the targets are the same in every test example, so R² is not defined there" in found
    (found,) = notes(numbers(np.random.default_rng(0).random((50, 2)), [[0.5, 0.1], [0.5, 0.2]]))
    assert "1 of 2 targets are the same in every test example" in found
