"""Models: compositions of layers, no mathematics of their own."""

from collections.abc import Sequence

from .errors import expect_positive
from .layer import Layer, expect_layer, serial
from .layers.activation import sigmoid
from .layers.dense import dense


def mlp(sizes: Sequence[int], activation: Layer | None = None) -> Layer:
    """dense, activation, dense, activation, ..., dense: len(sizes) - 1 dense layers, none after the last.

    x: (..., sizes[0]), y: (..., sizes[-1]).  The activation defaults to sigmoid.
    Raises ValueError for fewer than two sizes or one that is not a positive int.
    """
    if isinstance(sizes, int) or len(sizes) < 2:
        raise ValueError(f"mlp: sizes must hold at least inputs and outputs, got {sizes!r}; pass e.g. [784, 30, 10].")
    expect_positive("mlp", **{f"sizes[{i}]": n for i, n in enumerate(sizes)})
    activation = sigmoid() if activation is None else activation
    expect_layer("mlp", activation)
    layers = [dense(sizes[0], sizes[1])]
    for n_in, n_out in zip(sizes[1:-1], sizes[2:]):
        layers += [activation, dense(n_in, n_out)]
    return serial(*layers)._replace(name="mlp")
