import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax


def test_a_share_is_dropped_and_the_rest_scaled():
    layer = nnjax.dropout(0.25)
    y = np.asarray(layer.apply((), jnp.ones(100_000), key=jax.random.key(0)))
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.01


@pytest.mark.in_turn
def test_one_key_one_mask_forward_backward_and_in_float64():
    layer, x, key = nnjax.dropout(0.5), jnp.ones((50, 4)), jax.random.key(3)
    y, residuals = layer.fwd((), x, key=key)
    np.testing.assert_array_equal(y, layer.apply((), x, key=key))
    np.testing.assert_array_equal(layer.bwd(residuals, x)[1], y)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(layer.apply((), np.ones((50, 4), np.float64), key=key), y)
    np.testing.assert_array_equal(layer.apply((), x.astype(jnp.bfloat16), key=key) != 0, y != 0)


def test_without_a_key_it_is_the_identity():
    layer, x = nnjax.dropout(0.5), jnp.arange(4.0)
    y, residuals = layer.fwd((), x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(layer.bwd(residuals, x)[1], x)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, "0.5", True, float("nan")])
def test_bad_rates_are_refused(rate):
    with pytest.raises(ValueError, match=r"dropout: rate must be the share dropped, 0 <= rate < 1, got"):
        nnjax.dropout(rate)
