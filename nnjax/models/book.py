"""The network of Nielsen's book as a layer."""

from collections.abc import Sequence

import jax
from jax import Array

from .. import nielsen
from ..combinators import serial
from ..layer import Layer
from ..layers.activation import sigmoid
from ..layers.dense import DenseParams
from ..leaf import Like, leaf
from .mlp import mlp


def book(sizes: Sequence[int]) -> Layer[Array]:
    """`nielsen.feedforward` for rows: dense layers, each followed by a sigmoid, the last one too.

    x: (..., sizes[0]), y: (..., sizes[-1]); params: `nielsen.Params`, where w is the transpose of the kernel of `dense`.
    Raises ValueError for fewer than two sizes or one that is not a positive int.
    """
    layers = serial(mlp(sizes, sigmoid()), sigmoid())

    def apply(params, x, *, key=None):
        columns = x.reshape(-1, x.shape[-1]).T
        return nielsen.feedforward(params, columns).T.reshape(*x.shape[:-1], -1)

    def fwd(params, x, *, key=None):
        kernels = [DenseParams(w.T, b) for w, b in zip(params.w, params.b)]
        between = [p for kernel in kernels for p in (kernel, ())]
        return layers.fwd((tuple(between[:-1]), ()), x)

    def bwd(residuals, ct_y):
        (ct_layers, _), ct_x = layers.bwd(residuals, ct_y)
        ct_w, ct_b = zip(*ct_layers[::2])
        return nielsen.Params(tuple(w.T for w in ct_w), ct_b), ct_x  # transposed back

    def output(residuals):
        y = jax.tree.leaves(residuals[-1])[0]  # of sigmoid, which keeps its output
        return Like(y.shape, y.dtype)

    return leaf("nielsen", lambda key: nielsen.init(key, sizes), apply, fwd, bwd, output)
