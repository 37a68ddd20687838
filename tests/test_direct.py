import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import feedback

KEY = jax.random.key(0)
LOSS = nnjax.softmax_cross_entropy()


@pytest.mark.in_turn
def test_of_two_layers_it_is_random_feedback():
    keys = jax.random.split(KEY, 2)
    model = nnjax.mlp([4, 5, 3], nnjax.tanh())
    x, labels = jax.random.normal(KEY, (7, 4)), jnp.array([0, 1, 2, 0, 1, 2, 2])
    weights = jnp.arange(7.0)
    params = model.init(KEY)
    found = nnjax.direct_value_and_grad(model, LOSS, KEY)(params, x, labels, weights=weights)
    same = nnjax.mlp([4, 5, 3], nnjax.tanh(), feedback=feedback.random(keys[1]))
    right = nnjax.value_and_grad(same, LOSS)(params, x, labels, weights=weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, right)


@pytest.mark.in_turn
def test_every_layer_hears_only_the_output():
    model = nnjax.mlp([4, 5, 6, 3], nnjax.tanh())
    x, labels = jax.random.normal(KEY, (7, 4)), jnp.array([0, 1, 2, 0, 1, 2, 2])
    params = model.init(KEY)
    f = nnjax.direct_value_and_grad(model, LOSS, KEY)
    _, grads = f(params, x, labels)
    y, kept = model.fwd(params, x)
    _, (error, _) = LOSS.bwd(LOSS.fwd((), (y, labels))[1], jnp.ones(()))
    hidden = jnp.tanh(x @ params[0].w + params[0].b[None])
    b = feedback.random(jax.random.split(KEY, 3)[1])(jnp.zeros((5, 3)))
    delta = (error @ b) * (1 - hidden**2)
    np.testing.assert_allclose(grads[0].w, x.T @ delta, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(grads[0].b, delta.sum(0), rtol=1e-5, atol=1e-7)
    right = model.bwd(kept, error)[0]
    np.testing.assert_allclose(grads[4].w, right[4].w, rtol=1e-5, atol=1e-7)
    assert float(feedback.angle(grads[2].w, right[2].w)) > 10


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_lenet_with_dropout_has_gradients_like_its_parameters_and_its_own_masks():
    model = nnjax.lenet(3, channels=(2,), hidden=4, image=(10, 10, 1), dropout=0.5)
    x, labels = jax.random.normal(KEY, (10, 10, 10, 1)), jnp.arange(10, dtype=jnp.int32) % 3
    params = model.init(KEY)
    f = jax.jit(nnjax.direct_value_and_grad(model, LOSS, KEY))
    value, grads = f(params, x, labels, key=jax.random.key(5))
    right_value, right = nnjax.value_and_grad(model, LOSS)(params, x, labels, key=jax.random.key(5))
    np.testing.assert_allclose(value, right_value, rtol=1e-5)
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)
    np.testing.assert_allclose(grads[-1].w, right[-1].w, rtol=1e-4, atol=1e-6)
    assert all(float(jnp.abs(g).sum()) > 0 for g in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nnjax.direct_value_and_grad(nnjax.dense(3, 2), LOSS, KEY), ValueError,
         r"the model must be a serial, .*, got dense\(3, 2\); compose it by serial, mlp or lenet"),
        (lambda: nnjax.direct_value_and_grad(nnjax.mlp([3, 2]), LOSS, 3), TypeError, r"key must be a key .*, got int"),
        (lambda: nnjax.direct_value_and_grad(nnjax.mlp, LOSS, KEY), TypeError, r"model: expected a Layer, got mlp; call the"),
        (lambda: nnjax.direct_value_and_grad(nnjax.serial(nnjax.relu()), LOSS, KEY)(((),), jnp.ones((2, 3)), jnp.zeros(2, int)),
         ValueError, r"the model has no layer with weights, so there is nothing to train"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
