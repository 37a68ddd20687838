"""Examples that are images: their shape, and how more are made before training."""

import math

import numpy as np

from .dataset import DataError, Dataset, Split, expect_dataset


def image_shape(who: str, data: Dataset) -> tuple[int, int, int]:
    """(height, width, channels) of the examples, which are images: 1 channel for grey, 3 for RGB.

    Rows without a known shape count as square grey images if their length is a square.
    Raises DataError for examples that are not images; it says what they are, and what is expected.
    """
    if data.features is not None:
        raise DataError(f"data set {data.name!r}: {who} needs images, got the columns of a table; leave it out.")
    shape = tuple(data.train.x.shape[1:]) if data.shape is None else tuple(data.shape)
    side = math.isqrt(math.prod(shape))
    if shape == (side * side,):
        return side, side, 1
    if len(shape) == 2:
        return shape[0], shape[1], 1
    if len(shape) == 3 and shape[2] in (1, 3):
        return shape[0], shape[1], shape[2]
    first = len(shape) == 3 and shape[0] in (1, 3)
    remedy = "move the channels last, as in x.transpose(0, 2, 3, 1)" if first else "reshape them, or leave it out"
    raise DataError(
        f"data set {data.name!r}: {who} needs images, of shape (height, width), (height, width, 1) or (height, width, 3), or "
        f"flat rows of square grey ones, got examples of shape {shape}; {remedy}."
    )


def expand(data: Dataset) -> Dataset:
    """Five times the training images: each as it is, and shifted by one pixel down, up, right and left, filled with zeros.

    As in Nielsen's chapter 3; a row of x is an image, grey or RGB.  Raises DataError if they are not images: see `image_shape`.
    """
    expect_dataset("expand", data)
    shape = image_shape("expand", data)
    images = np.asarray(data.train.x).reshape(len(data.train.x), *shape)
    moved = [images]
    for axis in (1, 2):
        zeros = np.zeros_like(np.take(images, [0], axis))
        moved.append(np.concatenate([zeros, np.take(images, range(images.shape[axis] - 1), axis)], axis))
        moved.append(np.concatenate([np.take(images, range(1, images.shape[axis]), axis), zeros], axis))
    x = np.concatenate(moved).reshape(len(moved) * len(images), *data.train.x.shape[1:])
    y = np.concatenate([np.asarray(data.train.y)] * len(moved))
    return data._replace(train=Split(x, y))
