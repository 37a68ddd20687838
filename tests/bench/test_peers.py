import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.bench import peers

IMAGES = jax.random.normal(jax.random.key(0), (3, 28, 28, 1))
LABELS = jnp.array([1, 0, 2], jnp.int32)
IDS = jnp.array([[1, 4, 2, 0], [3, 3, 0, 1]], jnp.int32)
BUILDERS = {
    "mlp": lambda: peers.mlp([6, 5, 3], IMAGES[:, 0, :6, 0], LABELS),
    "lenet": lambda: peers.lenet(IMAGES, LABELS, (2, 3), 4),
    "gpt": lambda: peers.gpt(5, 4, 2, 2, 8, IDS, IDS[::-1]),
}


@pytest.mark.parametrize("model", BUILDERS)
@pytest.mark.repeats
def test_every_library_that_is_installed_takes_steps_that_lower_the_loss(model):
    for library, build in BUILDERS[model]().items():
        if importlib.util.find_spec(library) is None:
            continue
        run = build()
        first = run()
        if first is None:  # PyTorch keeps its parameters to itself
            continue
        for _ in range(20):
            last = run()
        assert last[1] < first[1], library


@pytest.mark.slow
def test_our_own_step_is_plain_descent():
    model, loss = nnjax.mlp([6, 5, 3]), nnjax.softmax_cross_entropy()
    params, x = model.init(jax.random.key(1)), IMAGES[:, 0, :6, 0]
    hand = nnjax.value_and_grad(model, loss)
    run = peers.descent(hand, params, x, LABELS)
    (after, _), value = run()
    expected, grads = hand(params, x, LABELS)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for a, p, g in zip(*map(jax.tree.leaves, (after, params, grads)), strict=True):
        np.testing.assert_allclose(a, p - peers.RATE * g, atol=1e-6)


def test_a_library_that_is_not_installed_is_left_out():
    ours = BUILDERS["mlp"]()["flax"]()
    found = peers.ratios(ours, {"no_such_library": None, "numpy": lambda: None, "flax": BUILDERS["mlp"]()["flax"]}, 0.05)
    assert list(found) == ["flax"]
    assert found["flax"] > 0
