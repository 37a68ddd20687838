"""PyTorch's samples of maps of single numbers, products and tables."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

import nnjax
from nnjax import layers

from .samples import agree, call, without

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def linear(x, w, b=None):
    dense = nnjax.dense(w.shape[1], w.shape[0], bias=b is not None)
    return call(dense, layers.DenseParams(w.T, b), x)


def embedding(w, ids, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False):
    without(
        padding_idx=(padding_idx, None), max_norm=(max_norm, None), scale_grad_by_freq=(scale_grad_by_freq, False)
    )  # sparse: another storage of the same gradient
    layer = nnjax.embedding(*w.shape)
    return call(layer, type(layer.init(jax.random.key(0)))(w), ids)


def softmax(x, dim=-1, dtype=None):
    without(dtype=(dtype, None))
    if x.ndim == 0:
        return call(nnjax.layers.softmax(), (), x[None])[0]
    return jnp.moveaxis(call(nnjax.layers.softmax(), (), jnp.moveaxis(x, dim, -1)), -1, dim)


def pointwise(make: Callable) -> Callable:
    return lambda x, **options: call(make(**options), (), x)


def gelu(x, approximate="none"):
    return call(nnjax.gelu(approximate=approximate == "tanh"), (), x)


def leaky_relu(x, negative_slope=0.01, inplace=False):
    return call(nnjax.leaky_relu(negative_slope), (), x)


OURS = {
    "nn.functional.linear": linear,
    "nn.functional.embedding": embedding,
    "nn.functional.relu": pointwise(nnjax.relu),
    "nn.functional.leaky_relu": leaky_relu,
    "nn.functional.silu": pointwise(nnjax.silu),
    "nn.functional.gelu": gelu,
    "sigmoid": pointwise(nnjax.sigmoid),
    "tanh": pointwise(nnjax.tanh),
    "softmax": softmax,
}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.in_turn
def test_samples_of_pytorch_give_the_same_output_and_gradients(database, name, capsys):
    agree(database[name], name, OURS[name], capsys)
