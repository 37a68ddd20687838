import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import feedback
from nnjax.train import load
from nnjax.train.recipe import FEEDBACK, make_recipe
from nnjax.train.watching.alignment import ANGLE, PSEUDO, RATIO, Aligned, make_alignment, weights

DIGITS = load("digits")
X, Y = jnp.asarray(DIGITS.train.x[:50]), jnp.asarray(DIGITS.train.y[:50])
LAYERS = ["[0].w", "[2].w", "[4].w"]


def recipe_of(name, model="mlp", **more):
    return make_recipe(model, DIGITS, hidden=(64, 12), feedback=name, key=jax.random.key(0), **more)


@pytest.mark.in_turn
def test_the_transpose_is_at_zero_exactly():
    recipe = recipe_of("random")
    same = Aligned(recipe.aligned.right, recipe.aligned.right, (feedback.transpose,) * 2)
    found = make_alignment(same, X, Y)(recipe.params)
    assert [float(found[ANGLE + n]) for n in LAYERS] == [0, 0, 0]
    np.testing.assert_allclose([float(found[RATIO + n]) for n in LAYERS], 1, rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in FEEDBACK if name not in ("transpose", "inverse")])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_below_the_top_every_other_operator_is_at_an_angle(name):
    recipe = recipe_of(name)
    found = make_alignment(recipe.aligned, X, Y)(recipe.params)
    angles = [float(v) for k, v in found.items() if k.startswith(ANGLE)]
    assert len(angles) == 3
    assert min(angles[:2]) > 1
    assert angles[2] < 0.1
    pseudo = [float(v) for k, v in found.items() if k.startswith(PSEUDO)]
    assert len(pseudo) == (0 if name == "direct" else 2)
    if name == "pseudo_inverse":  # the pseudo-inverse of the pseudo-inverse is the matrix itself
        np.testing.assert_allclose(pseudo, 0, atol=1e-2)
    if name == "mirror":
        b = recipe.params[4].back
        np.testing.assert_allclose(pseudo[1], feedback.angle(recipe.params[4].forward.w, jnp.linalg.pinv(b)), rtol=1e-4)


def test_stacked_biases_are_not_weights():
    params = nnjax.serial(nnjax.dense(2, 2), nnjax.scan_layers(nnjax.dense(2, 2), 3)).init(jax.random.key(0))
    assert list(weights(params)) == ["[0].w", "[1].w"]


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_ratio_is_that_of_the_norms():
    recipe = recipe_of("random")
    found = make_alignment(recipe.aligned, X, Y)(recipe.params)
    ours, right = (f(recipe.params, X, Y)[1][0].w for f in (recipe.hand, recipe.reference))
    np.testing.assert_allclose(found[RATIO + "[0].w"], jnp.linalg.norm(ours) / jnp.linalg.norm(right), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_book_and_lenet_are_measured_too():
    one_hot = jax.nn.one_hot(Y, 10)
    found = make_alignment(recipe_of("random", "nielsen").aligned, X, one_hot)(recipe_of("random", "nielsen").params)
    assert len([k for k in found if k.startswith(ANGLE)]) == 3
    recipe = make_recipe("lenet", DIGITS, channels=(3,), hidden=(12,), feedback="sign_symmetric", key=jax.random.key(0))
    found = make_alignment(recipe.aligned, X, Y)(recipe.params)
    assert len([k for k in found if k.startswith(ANGLE)]) == 3
    with pytest.raises(ValueError, match=r"got feedback 'direct'; use the model mlp"):
        recipe_of("direct", "nielsen")
