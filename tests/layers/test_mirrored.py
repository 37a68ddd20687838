import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nnjax
from nnjax.feedback import mirror
from nnjax.grad import add_l2
from nnjax.train import init_state, make_step

KEY = jax.random.key(0)


@pytest.mark.parametrize("layer", [nnjax.dense(4, 3, feedback=mirror), nnjax.conv(2, 3, 3, feedback=mirror)])
def test_the_error_goes_back_through_b_and_b_gets_the_update_of_w(layer):
    params = layer.init(KEY)
    n = params.forward.w.shape[-2]
    x = jax.random.normal(jax.random.key(1), (5, 6, n))
    y, residuals = layer.fwd(params, x)
    np.testing.assert_array_equal(y, layer.apply(params, x))
    ct_y = jax.random.normal(jax.random.key(2), y.shape)
    ct_params, _ = layer.bwd(residuals, ct_y)
    ct_w = ct_params.forward.w
    assert ct_params.back.shape == params.back.shape == ct_w.reshape(-1, 3).shape[::-1]
    np.testing.assert_array_equal(ct_params.back, ct_w.reshape(-1, 3).T)


def test_dense_sends_back_by_b_itself():
    layer = nnjax.dense(4, 3, feedback=mirror)
    params = layer.init(KEY)
    ct_y = jax.random.normal(jax.random.key(2), (5, 3))
    ct_x = layer.bwd(layer.fwd(params, jnp.ones((5, 4)))[1], ct_y)[1]
    np.testing.assert_array_equal(ct_x, ct_y @ params.back)
    assert not np.allclose(params.back, params.forward.w.T)


def test_with_decay_b_becomes_the_transpose():
    model = nnjax.mlp([4, 8, 3], nnjax.tanh(), feedback=mirror)
    x, labels = jax.random.normal(KEY, (20, 4)), jax.random.randint(KEY, (20,), 0, 3, jnp.int32)
    optimizer = optax.sgd(0.1)
    f = add_l2(nnjax.value_and_grad(model, nnjax.softmax_cross_entropy()), 0.1)
    step = jax.jit(make_step(f, optimizer))
    state = init_state(model.init(KEY), optimizer, KEY)

    def apart(state):
        params = state.params[2]
        return float(jnp.linalg.norm(params.back - params.forward.w.T))

    before = apart(state)
    for _ in range(100):
        state, _ = step(state, x, labels)
    np.testing.assert_allclose(apart(state), before * (1 - 0.1 * 0.1) ** 100, rtol=1e-4)  # only the decay


def test_other_parameters_are_refused():
    layer = nnjax.dense(4, 3, feedback=mirror)
    params = layer.init(KEY)
    with pytest.raises(TypeError, match=r"dense\(4, 3\): params must be MirrorParams\(forward, back\), got DenseParams"):
        layer.apply(params.forward, jnp.ones((2, 4)))
    with pytest.raises(ValueError, match=r"back must have shape \(3, 4\), got float32 \(4, 3\)"):
        layer.fwd(params._replace(back=params.back.T), jnp.ones((2, 4)))
