"""PyTorch's samples of norms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import layers

from .samples import agree, call, channels_first, channels_last, without

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def _scaled(n, scale, offset):
    return layers.norm.NormParams(jnp.ones(n) if scale is None else scale, offset)


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    without(**{"a negative eps": (eps <= 0, False)})
    n = math.prod(shape)
    flat = [None if a is None else a.reshape(n) for a in (weight, bias)]
    params = _scaled(n, flat[0], jnp.zeros(n) if bias is None else flat[1])
    return call(nnjax.layer_norm(n, eps=eps), params, x.reshape(*x.shape[: x.ndim - len(shape)], n)).reshape(x.shape)


def rms_norm(x, shape, weight=None, eps=None):
    eps = np.finfo(np.float64).eps if eps is None else eps
    without(**{"a negative eps": (eps <= 0, False)})
    n = math.prod(shape)
    params = _scaled(n, None if weight is None else weight.reshape(n), None)
    return call(nnjax.rms_norm(n, eps=float(eps)), params, x.reshape(*x.shape[: x.ndim - len(shape)], n)).reshape(x.shape)


def group_norm(x, groups, weight=None, bias=None, eps=1e-5):
    without(**{"a negative eps": (eps <= 0, False)})
    n = x.shape[1]
    params = _scaled(n, weight, jnp.zeros(n) if bias is None else bias)
    spread = channels_last(x)
    flat = spread.reshape(x.shape[0], math.prod(x.shape[2:]), 1, n)  # an image, whose height is the number of places
    return channels_first(call(nnjax.group_norm(groups, n, eps=eps), params, flat).reshape(spread.shape))


def batch_norm(x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    if x.ndim < 2:  # nothing at all: PyTorch lets it pass without channels
        x, mean, var = x[:, None], jnp.zeros(1), jnp.ones(1)
        return batch_norm(x, mean, var, training=training, eps=eps)[:, 0]
    n = x.shape[1]
    norm = nnjax.batch_norm(n, eps=eps)
    given = {"scale": jnp.ones(n) if weight is None else weight, "offset": jnp.zeros(n) if bias is None else bias}
    given |= {} if training else {"mean": mean, "var": var}
    params = norm.init(jax.random.key(0))._replace(**given)
    return channels_first(call(norm, params, channels_last(x)))


OURS = {
    "nn.functional.layer_norm": layer_norm,
    "nn.functional.rms_norm": rms_norm,
    "nn.functional.group_norm": group_norm,
    "nn.functional.batch_norm": batch_norm,
}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.in_turn
def test_samples_of_pytorch_give_the_same_output_and_gradients(database, name, capsys):
    agree(database[name], name, OURS[name], capsys, 0.95 if name == "nn.functional.batch_norm" else 0.0)
