"""The rows of convolutions and pools."""

import jax.numpy as jnp

from ... import layers
from .entry import Entry
from .making import backward, normal


def images() -> list[Entry]:
    conv, transposed, pool = layers.conv, layers.conv_transpose, layers.max_pool

    def by_reshape(params, x, *, key=None):
        b, h, w, c = x.shape
        return x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))

    def shifted(layer):
        def apply(params, x, *, key=None):  # a depthwise 3x3 convolution as nine shifted products
            padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            h, w = x.shape[1:3]
            products = [
                padded[:, i : i + h, j : j + w] * jnp.broadcast_to(params.w[i, j, 0], x.shape)
                for i in range(3)
                for j in range(3)
            ]
            return sum(products[1:], products[0]) + jnp.broadcast_to(params.b, x.shape)

        return {"shifts": apply}

    depthwise = conv(64, 64, (3, 3), groups=64)
    doubled, line = transposed(64, 32, (4, 4), stride=2), transposed(32, 32, 4, stride=2)
    return [
        Entry("max_pool 2x2, 64x28x28x32", backward(pool((2, 2)), normal(64, 28, 28, 32), {"reshape": by_reshape}), 0.08, 0.10),
        Entry("max_pool 3x3 stride 2, 32x27x27x32", backward(pool((3, 3), (2, 2)), normal(32, 27, 27, 32))),
        Entry("avg_pool 2x2, 64x28x28x32", backward(layers.avg_pool((2, 2)), normal(64, 28, 28, 32))),
        Entry("max_pool 3x3 stride 2 padded, 32x28x28x32", backward(pool((3, 3), (2, 2), 1), normal(32, 28, 28, 32))),
        Entry("max_pool 2x2x2, 8x16x16x16x16", backward(pool((2, 2, 2)), normal(8, 16, 16, 16, 16))),
        Entry("avg_pool 3x3 padded, 32x28x28x32", backward(layers.avg_pool((3, 3), (1, 1), 1), normal(32, 28, 28, 32))),
        Entry("conv 5x5, 3 -> 16, 64x32x32", backward(conv(3, 16, (5, 5)), normal(64, 32, 32, 3)), 0.50),
        Entry("conv 5x5, 16 -> 32, 64x16x16", backward(conv(16, 32, (5, 5)), normal(64, 16, 16, 16)), 0.50),
        Entry("conv 3x3, 64 -> 64, 16x32x32", backward(conv(64, 64, (3, 3)), normal(16, 32, 32, 64))),
        Entry("conv 1x1, 64 -> 128, 16x16x16", backward(conv(64, 128, (1, 1)), normal(16, 16, 16, 64))),
        Entry("conv 3x3, 8 -> 8, batch 1, 16x16", backward(conv(8, 8, (3, 3)), normal(1, 16, 16, 8))),
        Entry("conv 1-D 5, 64 -> 64, 16x256", backward(conv(64, 64, 5), normal(16, 256, 64))),
        Entry("depthwise 3x3, 64, 16x56x56", backward(depthwise, normal(16, 56, 56, 64), shifted(depthwise)), 0.25, 1.7),
        Entry("conv 3-D 3x3x3, 8 -> 16, 4x16x16x16", backward(conv(8, 16, (3, 3, 3)), normal(4, 16, 16, 16, 8))),
        Entry("conv_transpose 4x4 stride 2, 64 -> 32, 16x14x14", backward(doubled, normal(16, 14, 14, 64))),
        Entry("conv_transpose 3x3, 32 -> 32, 16x28x28", backward(transposed(32, 32, (3, 3)), normal(16, 28, 28, 32))),
        Entry("conv_transpose 1-D 4 stride 2, 32 -> 32, 16x128", backward(line, normal(16, 128, 32))),
    ]
