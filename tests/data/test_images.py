import math
import re

import jax
import numpy as np
import pytest

from nnjax.data.images import image_shape
from nnjax.train import DataError, Dataset, Split, expand, load_files, standardise
from nnjax.train.recipe import make_recipe


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
    with pytest.raises(DataError, match=r"expand needs images.* got examples of shape \(8,\)"):
        expand(Dataset("one", Split(image[:, :8], np.array([3], np.int32)), empty, empty, 10))


def colour(n, shape):
    return {"x": np.random.default_rng(0).random((n, *shape)), "y": np.arange(n) % 2}


@pytest.mark.parametrize("shape", [(4, 4, 4), (2, 2, 4), (4, 4, 1, 1), (3, 3, 3, 3), (1, 4, 4), (3, 7, 7), (12,)])
def test_examples_that_are_not_images_are_refused(tmp_path, shape):
    np.savez(tmp_path / "mine.npz", **colour(20, shape))
    data = load_files(tmp_path / "mine.npz")
    assert data.shape == shape
    told = r"needs images, .* got examples of shape " + re.escape(str(shape))
    with pytest.raises(DataError, match=f"expand {told}"):
        expand(data)
    with pytest.raises(DataError, match=f"the model lenet {told}"):
        make_recipe("lenet", data, hidden=(3,), channels=(2,), key=jax.random.key(0))
    assert make_recipe("mlp", data, hidden=(3,), key=jax.random.key(0)).sizes == str([math.prod(shape), 3, 2])


def test_channels_first_gets_the_remedy_to_move_them_last(tmp_path):
    np.savez(tmp_path / "mine.npz", **colour(20, (3, 8, 8)))
    with pytest.raises(DataError, match=r"x\.transpose\(0, 2, 3, 1\)"):
        expand(load_files(tmp_path / "mine.npz"))


@pytest.mark.parametrize(
    ("shape", "image"),
    [((6, 6), (6, 6, 1)), ((6, 6, 1), (6, 6, 1)), ((36,), (6, 6, 1)), ((6, 9), (6, 9, 1)), ((7, 6, 3), (7, 6, 3))],
)
def test_grey_and_rgb_images_are_accepted_in_any_of_their_shapes(tmp_path, shape, image):
    np.savez(tmp_path / "mine.npz", **colour(20, shape))
    data = load_files(tmp_path / "mine.npz")
    assert image_shape("expand", data) == image
    more = expand(data)
    assert more.train.x.shape == (80, math.prod(shape))
    assert more.shape == data.shape == standardise(data).shape
    np.testing.assert_array_equal(more.train.x[:16], data.train.x)
    down, left = (more.train.x[i : i + 16].reshape(16, *image) for i in (16, 64))
    np.testing.assert_array_equal(down[:, 1:], data.train.x.reshape(16, *image)[:, :-1])
    np.testing.assert_array_equal(left[:, :, :-1], data.train.x.reshape(16, *image)[:, :, 1:])
    assert (down[:, 0] == 0).all()
    words = make_recipe("lenet", data, hidden=(3,), channels=(2,), key=jax.random.key(0)).sizes
    assert words.startswith(f"{image[0]}x{image[1]}")
    assert ("RGB" in words) is (image[2] == 3)


def test_a_data_set_made_by_hand_is_told_its_shape_or_not():
    part = Split(np.zeros((4, 36), np.float32), np.zeros(4, np.int32))
    data = Dataset("mine", part, part, part, 2)
    assert data.shape is None
    assert image_shape("expand", data) == (6, 6, 1)
    assert image_shape("expand", data._replace(shape=(3, 12))) == (3, 12, 1)
    images = Split(np.ones((4, 6, 6, 3), np.float32), part.y)
    assert expand(data._replace(train=images)).train.x.shape == (20, 6, 6, 3)
    with pytest.raises(DataError, match="got the columns of a table"):
        expand(data._replace(features=("x",) * 36))
