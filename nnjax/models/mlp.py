"""Dense layers with activations between them."""

from collections.abc import Sequence

from jax import Array

from ..combinators import serial
from ..errors import expect_sizes
from ..feedback import Operator, for_layers, transpose
from ..layer import Layer, expect_layer
from ..layers.activation import sigmoid
from ..layers.dense import dense

Feedback = Operator | Sequence[Operator]


def mlp(sizes: Sequence[int], activation: Layer | None = None, *, feedback: Feedback = transpose) -> Layer[Array]:
    """dense, activation, dense, activation, ..., dense: len(sizes) - 1 dense layers, none after the last.

    x: (..., sizes[0]), y: (..., sizes[-1]).  The activation defaults to sigmoid.  feedback: one operator of `nnjax.feedback`,
    or one for each layer after the first, which sends no error back.
    Raises ValueError for fewer than two sizes or one that is not a positive int.
    """
    sizes = expect_sizes("mlp", "sizes", sizes, "[784, 30, 10]")
    if len(sizes) < 2:
        raise ValueError(f"mlp: sizes must list at least inputs and outputs, got {sizes!r}; pass e.g. [784, 30, 10].")
    activation = sigmoid() if activation is None else activation
    expect_layer("mlp", activation)
    layers = [dense(sizes[0], sizes[1])]
    for n_in, n_out, back in zip(sizes[1:-1], sizes[2:], for_layers("mlp", feedback, len(sizes) - 2)):
        layers += [activation, dense(n_in, n_out, feedback=back)]
    return serial(*layers)._replace(name="mlp")
