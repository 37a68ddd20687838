import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nnjax
from nnjax.train import fit, load, trajectory

MODEL, LOSS = nnjax.mlp([64, 16, 10], nnjax.tanh()), nnjax.softmax_cross_entropy()
HAND, REFERENCE = nnjax.value_and_grad(MODEL, LOSS), nnjax.reference_value_and_grad(MODEL, LOSS)
DIGITS = load("digits")
X, Y = jnp.asarray(DIGITS.train.x), jnp.asarray(DIGITS.train.y)
PARAMS, KEY = MODEL.init(jax.random.key(0)), jax.random.key(1)
HOW = {"optimizer": optax.sgd(0.1), "batch_size": 32, "key": KEY}


@pytest.mark.in_turn
def test_two_right_runs_stay_together_and_a_wrong_one_leaves():
    right = trajectory(HAND, REFERENCE, PARAMS, X, Y, steps=60, **HOW)
    assert all(column.shape == (60,) for column in right)
    assert right.params_apart.max() < 1e-5
    assert right.loss_apart.max() < 1e-4

    def wrong(params, x, labels, **how):
        value, (first, *rest) = HAND(params, x, labels, **how)
        return value, (first._replace(w=1.01 * first.w), *rest)

    left = trajectory(wrong, REFERENCE, PARAMS, X, Y, steps=60, **HOW)
    assert left.params_apart[0] > 1e-6
    assert left.params_apart[-1] > 100 * right.params_apart[-1]


@pytest.mark.in_turn
def test_the_steps_are_those_of_fit():
    found = trajectory(HAND, REFERENCE, PARAMS, X, Y, steps=2 * 39, **HOW)
    done = fit(HAND, PARAMS, DIGITS, predict=MODEL.apply, epochs=2, **HOW)
    np.testing.assert_allclose([found.loss[:39].mean(), found.loss[39:].mean()], [r.loss for r in done.history], rtol=1e-5)
