"""Convolutions with pooling, then dense layers."""

from collections.abc import Sequence

from jax import Array

from ..chunks import in_chunks
from ..combinators import serial
from ..errors import expect_positive, expect_sizes, whole_number
from ..feedback import for_layers, transpose
from ..layer import Layer, expect_layer
from ..layers.activation import relu
from ..layers.conv import conv
from ..layers.dense import dense
from ..layers.dropout import dropout as drop
from ..layers.dropout import expect_rate
from ..layers.pool import flatten, max_pool
from .mlp import Feedback

# Images at a time on a CPU, so that they stay in its cache (bench case `lenet`).
CHUNK = 8


def lenet(
    classes: int = 10,
    *,
    channels: Sequence[int] = (20, 40),
    hidden: int | Sequence[int] = 100,
    activation: Layer | None = None,
    image: Sequence[int] = (28, 28, 1),
    dropout: float = 0.0,
    feedback: Feedback = transpose,
) -> Layer[Array]:
    """For each entry of `channels`: conv 5 x 5 without padding, max-pool 2 x 2, activation; then dense layers.

    x: (..., *image), image = (height, width, channels); y: (..., classes), logits.  hidden: the width, or widths, of the
    dense layers between, each followed by the activation (relu by default); dropout: before each dense layer; feedback:
    as in `mlp`.  Two conv-pool layers are LeNet (LeCun et al. 1998), and chapter 6 of Nielsen's book.
    Raises ValueError for sizes that are not positive ints, and for an image too small for the kernels.
    """
    (classes,) = expect_positive("lenet", classes=classes)
    width = whole_number(hidden)
    hidden = expect_sizes("lenet", "hidden", hidden if width is None else (width,), "100 or (100, 50)")
    channels = expect_sizes("lenet", "channels", channels, "(20, 40)")
    image = expect_sizes("lenet", "image", image, "(28, 28, 1)")
    if len(image) != 3:
        raise ValueError(f"lenet: image must be (height, width, channels), got {image}; pass e.g. (28, 28, 1).")
    dropped = (drop(dropout),) if expect_rate("lenet", dropout) else ()
    activation = relu() if activation is None else activation
    expect_layer("lenet", activation)
    backs = iter((transpose, *for_layers("lenet", feedback, len(channels) + len(hidden))))
    height, width, n_in = image
    layers = []
    for n_out in channels:
        layers += [conv(n_in, n_out, (5, 5), padding="VALID", feedback=next(backs)), max_pool((2, 2)), activation]
        height, width, n_in = (height - 4) // 2, (width - 4) // 2, n_out
        if height < 1 or width < 1:
            least = 5 * 2 ** len(channels) - 4  # what a final size of 1 needs: 1, 6, 16, 36
            raise ValueError(
                f"lenet: an image of {image[0]} x {image[1]} is too small for {len(channels)} convolutions of 5 x 5, each "
                f"followed by a 2 x 2 max-pool; pass an image of at least {least} x {least}, or fewer channels."
            )
    layers = [in_chunks(serial(*layers, flatten(3)), CHUNK, axes=3, on="cpu")]
    widths = (height * width * n_in, *hidden, classes)
    for i, (n_in, n_out) in enumerate(zip(widths[:-1], widths[1:])):
        layers += [activation] * (i > 0)
        layers += dropped
        layers.append(dense(n_in, n_out, feedback=next(backs)))
    return serial(*layers)._replace(name="lenet")
