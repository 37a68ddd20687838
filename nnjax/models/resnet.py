"""Residual networks for small images."""

from collections.abc import Sequence

from jax import Array

from ..combinators import residual, serial
from ..errors import expect_positive, expect_sizes
from ..layer import Layer, expect_layer
from ..layers.activation import relu
from ..layers.batch_norm import batch_norm
from ..layers.conv import conv
from ..layers.dense import dense
from ..layers.pool import global_avg_pool

MOST_BLOCKS = 200


def resnet(
    classes: int = 10,
    *,
    channels: Sequence[int] = (16, 32, 64),
    blocks: int = 3,
    activation: Layer | None = None,
    image: Sequence[int] = (32, 32, 3),
) -> Layer[Array]:
    """conv 3 x 3, then a stage of `blocks` residual blocks for each entry of `channels`, the mean over space, a dense layer.

    x: (batch, *image), image = (height, width, channels); y: (batch, classes), logits.  A block is activation(x + f(x)) with
    f = conv, batch_norm, activation, conv, batch_norm; the first of each later stage has stride 2 and a projection as its
    shortcut, conv 1 x 1 and batch_norm. relu is the default activation. Three stages of 3 blocks are the ResNet-20 of He et al.
    2016, section 4.2, with projections. batch_norm sees the whole batch: evaluate with `running_statistics` or `calibrate`.
    Raises ValueError for sizes that are not positive ints.

    >>> model = nnjax.resnet(10, channels=(4, 8), blocks=1, image=(8, 8, 1))
    >>> model.apply(model.init(jax.random.key(0)), jnp.ones((2, 8, 8, 1))).shape
    (2, 10)
    """
    classes, blocks = expect_positive("resnet", classes=classes, blocks=blocks)
    if blocks > MOST_BLOCKS:
        raise ValueError(f"resnet: blocks must be at most {MOST_BLOCKS} a stage, got {blocks}; make stages wider.")
    channels = expect_sizes("resnet", "channels", channels, "(16, 32, 64)")
    image = expect_sizes("resnet", "image", image, "(32, 32, 3)")
    if len(image) != 3:
        raise ValueError(f"resnet: image must be (height, width, channels), got {image}; pass e.g. (32, 32, 3).")
    if not channels:
        raise ValueError("resnet: channels must hold at least one stage, got none; pass e.g. (16, 32, 64).")
    activation = relu() if activation is None else activation
    expect_layer("resnet", activation)
    n_in = channels[0]
    layers = [*_normed(image[2], n_in, 3), activation]
    for stage, n_out in enumerate(channels):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            f = serial(*_normed(n_in, n_out, 3, stride), activation, *_normed(n_out, n_out, 3))
            same = stride == 1 and n_in == n_out
            layers += [residual(f) if same else residual(f, serial(*_normed(n_in, n_out, 1, stride))), activation]
            n_in = n_out
    return serial(*layers, global_avg_pool(), dense(n_in, classes))._replace(name="resnet")


def _normed(n_in: int, n_out: int, k: int, stride: int = 1) -> list[Layer[Array]]:
    """A convolution and its norm, whose offset makes a bias useless."""
    return [conv(n_in, n_out, (k, k), stride=stride, padding=k // 2, bias=False), batch_norm(n_out)]
