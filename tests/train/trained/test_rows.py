import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from nnjax.data.dataset import DataError, Dataset, Moments, Split, moments, standardise
from nnjax.train.trained.record import Rows
from nnjax.train.trained.rows import blocks, prepared, whole_rows

TABLE, IMAGES = Rows((3,)), Rows((2, 4), 255)


@pytest.mark.parametrize(
    ("rows", "shape", "wanted", "single"),
    [
        (TABLE, (5, 3), (5, 3), False), (TABLE, (3,), (1, 3), True), (TABLE, (0, 3), (0, 3), False),
        (TABLE, (3, 3), (3, 3), False),
        (IMAGES, (5, 2, 4), (5, 8), False), (IMAGES, (5, 8), (5, 8), False), (IMAGES, (2, 4), (1, 8), True),
        (IMAGES, (8,), (1, 8), True), (IMAGES, (5, 2, 4, 1), (5, 8), False), (IMAGES, (2, 4, 1), (1, 8), True),
        (IMAGES, (0, 2, 4), (0, 8), False), (Rows((2, 4, 3)), (2, 4, 3), (1, 24), True), (Rows(()), (5,), (5, 1), False),
        (Rows(()), (), (1, 1), True), (Rows((1,)), (1,), (1, 1), True), (Rows((1,)), (4, 1), (4, 1), False),
    ],
)  # fmt: skip
def test_examples_are_rows_however_they_come(rows, shape, wanted, single):
    found, alone = whole_rows("predict", np.zeros(shape), rows)
    assert (found.shape, alone) == (wanted, single)


@pytest.mark.parametrize("shape", [(5, 4), (4,), (), (0,), (5, 3, 1), (2, 4)])
def test_examples_of_another_width_are_refused(shape):
    with pytest.raises(DataError, match=r"must have shape \(n, 3\).*got float64"):
        whole_rows("predict", np.zeros(shape), TABLE)
    with pytest.raises(DataError, match=r"must have shape \(n, 2, 4\) or \(n, 8\)"):
        whole_rows("predict", np.zeros((5, 9)), IMAGES)


@pytest.mark.parametrize("x", ["abc", [[1, 2, 3], [1]], np.zeros((2, 3), complex), np.array([["a"] * 3]), None,
                               np.ma.masked_array(np.zeros((2, 3)), True)])  # fmt: skip
def test_anything_but_numbers_is_refused(x):
    with pytest.raises(TypeError, match=r"must be an array of (real )?numbers"):
        whole_rows("predict", x, TABLE)


def test_every_dtype_and_view_gives_the_same_rows():
    x = np.arange(24).reshape(8, 3) % 5
    views = [x.astype(t) for t in (np.int8, np.uint8, np.int64, np.uint64, np.float16, np.float32, np.float64, ">f8", ">i4")]
    views += [np.asfortranarray(x), x[::-1][::-1], np.repeat(x, 2, 1)[:, ::2], x.tolist(), jnp.asarray(x)]
    views += [x.astype(ml_dtypes.bfloat16)]
    for view in views:
        found = prepared("predict", whole_rows("predict", view, TABLE)[0], TABLE)
        np.testing.assert_array_equal(found, x.astype(np.float32), strict=True)
    bools = prepared("predict", whole_rows("predict", x > 2, TABLE)[0], TABLE)
    np.testing.assert_array_equal(bools, (x > 2).astype(np.float32), strict=True)


def test_rows_are_standardised_bit_for_bit_as_in_training():
    x = np.random.default_rng(0).normal(size=(20, 3)) * [1e-3, 1, 1e5] + [0, 7, 1e6]
    x[:, 1] = 7
    x32, y = x.astype(np.float32), np.zeros(20, np.int32)
    data = Dataset("mine", *(Split(x32[s], y[s]) for s in (slice(10), slice(10, 15), slice(15, 20))), classes=1)
    known = moments(data.train.x)
    assert isinstance(known, Moments)
    assert known.deviation[1] == 1
    for given in (x, x32):
        found = prepared("predict", given[15:], Rows((3,), 1, known))
        np.testing.assert_array_equal(found, standardise(data).test.x, strict=True)


def test_pixels_are_scaled_as_the_files_of_the_data_are():
    pixels = np.array([[0, 128, 255, 1]], np.uint8)
    rows = Rows((4,), 255)
    wanted = pixels.astype(np.float32) / np.float32(255)
    for given in (pixels, pixels.astype(np.int64), wanted, wanted.astype(np.float64)):
        np.testing.assert_array_equal(prepared("predict", given, rows), wanted, strict=True)
    with pytest.raises(DataError, match=r"pixels in floating point must lie in 0 \.\.\. 1.*got up to 255; divide"):
        prepared("predict", pixels.astype(np.float64), rows)
    for wrong in (pixels.astype(np.int16) - 1, pixels.astype(np.int16) + 1):
        with pytest.raises(DataError, match=r"must be pixels in 0 \.\.\. 255"):
            prepared("predict", wrong, rows)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_numbers_that_are_not_finite_are_named_by_their_row(bad):
    x = np.zeros((6, 3))
    x[[2, 4], 1] = bad
    for rows in (TABLE, Rows((3,), 255)):
        with pytest.raises(
            DataError, match=r"must be finite.* 2 rows .*the first is row 102" if bad != 1e39 else "3.4e38|0 ... 1"
        ):
            prepared("predict", x, rows, 100)


def test_blocks_are_padded_to_powers_of_two():
    assert blocks(0, 8) == []
    assert blocks(1, 8) == [(slice(0, 1), 1)]
    assert blocks(19, 8) == [(slice(0, 8), 8), (slice(8, 16), 8), (slice(16, 19), 4)]
