import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import DenseParams


@pytest.fixture
def layer():
    return nnjax.dense(4, 3)


@pytest.fixture
def params(layer):
    return layer.init(jax.random.key(0))


@pytest.mark.in_turn
def test_forward_is_x_w_plus_b(layer, params):
    params = params._replace(b=jnp.arange(3.0))
    x = jax.random.normal(jax.random.key(1), (5, 4))
    np.testing.assert_allclose(layer.apply(params, x), np.asarray(x) @ np.asarray(params.w) + np.arange(3.0), rtol=1e-5)
    np.testing.assert_array_equal(layer.fwd(params, x)[0], layer.apply(params, x))


def test_initial_weights_have_glorots_variance_and_no_bias():
    w, b = nnjax.dense(400, 600).init(jax.random.key(0))
    assert b is not None
    assert not b.any()
    np.testing.assert_allclose(w.var(), 2 / 1000, rtol=0.02)


def test_without_bias_there_is_no_bias_and_no_cotangent():
    layer = nnjax.dense(4, 3, bias=False)
    params = layer.init(jax.random.key(0))
    assert params.b is None
    _, residuals = layer.fwd(params, jnp.ones((2, 4)))
    ct_params, _ = layer.bwd(residuals, jnp.ones((2, 3)))
    assert ct_params.b is None


@pytest.mark.in_turn
def test_feedback_replaces_the_transpose_only_in_the_backward(params):
    layer = nnjax.dense(4, 3, feedback=lambda w: jnp.zeros_like(w.T))
    x = jnp.ones((2, 4))
    np.testing.assert_array_equal(layer.apply(params, x), nnjax.dense(4, 3).apply(params, x))
    ct_params, ct_x = layer.bwd(layer.fwd(params, x)[1], jnp.ones((2, 3)))
    assert not ct_x.any()
    assert ct_params.w.any()
    assert {row.leaf for row in nnjax.check_layer(layer, params, x).failures} == {"x"}


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (jnp.ones((2, 5)), ValueError, r"dense: x must have 4 features in its last axis.*got float32 \(2, 5\)"),
        (jnp.ones(()), ValueError, r"dense: x must have 4 features.*got float32 \(\)"),
        (jnp.ones((2, 4), jnp.int32), TypeError, r"dense: x must be real floating point, got int32 \(2, 4\); convert"),
        (jnp.ones((2, 4), jnp.complex64), TypeError, r"dense: x must be real floating point, got complex64"),
        (jnp.ones((2, 4), jnp.bfloat16), TypeError, r"dense: x and w must have the same dtype, got bfloat16 and float32"),
        ([[1.0] * 4], TypeError, r"dense: x must be an array, got list; convert it with jnp.asarray"),
    ],
)
@pytest.mark.parametrize("method", ["apply", "fwd"])
def test_bad_x_is_refused(layer, params, x, error, message, method):
    with pytest.raises(error, match=message):
        getattr(layer, method)(params, x)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"w": 1}, TypeError, r"dense: params must be DenseParams\(w, b\), got dict; make them with layer.init\(key\)"),
        ((), TypeError, r"dense: params must be DenseParams\(w, b\), got tuple"),
        (
            DenseParams(jnp.ones((4, 3)), jnp.ones(4)),
            ValueError,
            r"dense: b must have shape \(3,\), got float32 \(4,\)",
        ),
        (DenseParams(jnp.ones(4), None), ValueError, r"dense: w must have shape \(n_in, n_out\), got float32 \(4,\)"),
        (DenseParams(jnp.ones((4, 3), int), None), TypeError, r"dense: w must be real floating point, got int32"),
    ],
)
def test_bad_params_are_refused(layer, bad, error, message):
    with pytest.raises(error, match=message):
        layer.apply(bad, jnp.ones((2, 4)))


@pytest.mark.parametrize("sizes", [(0, 3), (4, -1), (4.0, 3), (4, True)])
def test_bad_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match=r"dense: n_(in|out) must be a positive int, got"):
        nnjax.dense(*sizes)
