import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnjax.train import init_state, load
from nnjax.train.recipe import make_recipe
from nnjax.train.watching.watch import APART, NORM, make_measure

DIGITS = load("digits")
X, Y = jnp.asarray(DIGITS.train.x[:20]), jnp.asarray(DIGITS.train.y[:20])


@pytest.mark.in_turn
def test_norms_are_those_of_the_gradient_and_a_wrong_gradient_is_seen():
    recipe = make_recipe("mlp", DIGITS, hidden=(5,), key=jax.random.key(0))
    state = init_state(recipe.params, optax.sgd(0.1), jax.random.key(1))
    found = make_measure(recipe, X, Y)(state)
    _, grads = recipe.reference(recipe.params, X, Y)
    assert list(found) == [APART, *(f"{NORM}[{i}].{p}" for i in (0, 2) for p in "wb")]
    assert float(found[f"{NORM}[0].w"]) == pytest.approx(float(np.linalg.norm(grads[0].w)), rel=1e-5)
    assert float(found[APART]) < 1e-5
    wrong = recipe._replace(hand=lambda *a, **k: jax.tree.map(lambda g: 1.01 * g, recipe.hand(*a, **k)))
    assert float(make_measure(wrong, X, Y)(state)[APART]) == pytest.approx(0.01, rel=1e-2)


def test_norms_of_gradients_in_float16_do_not_overflow():
    recipe = make_recipe("mlp", DIGITS, hidden=(5,), key=jax.random.key(0))

    def large(params, x, labels, *, key=None):
        return jnp.zeros((), jnp.float16), jax.tree.map(lambda p: jnp.full_like(p, 300, dtype=jnp.float16), params)

    state = init_state(recipe.params, optax.sgd(0.1), jax.random.key(1))
    found = make_measure(recipe._replace(hand=large, reference=large), X, Y)(state)
    assert float(found[f"{NORM}[2].w"]) == pytest.approx(300 * np.sqrt(50), rel=1e-5)
    assert float(found[APART]) == 0
