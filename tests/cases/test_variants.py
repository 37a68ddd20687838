import jax
import jax.numpy as jnp

from nnjax import layers
from nnjax.cases import frozen, jittered


def test_no_bias_is_zero_and_no_scale_one():
    params = jittered(layers.layer_norm(4)).init(jax.random.key(0))
    assert all(jnp.abs(p - start).min() > 0 for p, start in zip(params[:2], (1.0, 0.0)))


def test_a_frozen_norm_has_statistics():
    params = frozen(layers.batch_norm(3)).init(jax.random.key(0))
    assert params.mean.shape == params.var.shape == (3,)
