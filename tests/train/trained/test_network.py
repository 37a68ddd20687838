import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.train import Dataset, Split
from nnjax.train.recipe import FEEDBACK, make_recipe
from nnjax.train.trained.network import Network, layer_of, layers_after_the_first, operators

R = np.random.default_rng(0)
X, Y = R.normal(size=(12, 64)).astype(np.float32), (np.arange(12) % 3).astype(np.int32)
DATA = Dataset("mine", *(Split(X, Y),) * 3, classes=3, shape=(8, 8))
OPTIONS = {
    "mlp": {"hidden": (5, 5), "activation": "tanh"},
    "lenet": {"hidden": (5,), "channels": (2,), "activation": "gelu", "dropout": 0.5},
    "resnet": {"channels": (2, 3), "blocks": 2},
    "nielsen": {"hidden": (5,)},
}


@pytest.mark.parametrize("model", OPTIONS)
@pytest.mark.repeats
def test_the_network_of_a_recipe_is_made_again_from_its_description(model):
    recipe = make_recipe(model, DATA, key=jax.random.key(0), **OPTIONS[model])
    layer = layer_of(recipe.network)
    like = jax.eval_shape(layer.init, jax.random.key(0))
    assert jax.tree.map(lambda p: (p.shape, p.dtype), like) == jax.tree.map(lambda p: (p.shape, p.dtype), recipe.params)
    x = X.reshape(-1, *recipe.network.options.get("image", (64,)))
    assert jnp.array_equal(layer.apply(recipe.params, x), recipe.predict(recipe.params, X))


@pytest.mark.parametrize("feedback", FEEDBACK)
def test_feedback_is_drawn_again_from_the_same_key(feedback):
    key = jax.random.key(3)
    square = Network("mlp", {"sizes": [64, 5, 5, 5], "activation": "relu"})
    recipe = make_recipe("mlp", DATA._replace(classes=5), hidden=(5, 5), feedback=feedback, key=key)
    assert recipe.network == square
    sent_back = operators(feedback, key, layers_after_the_first(square))
    assert len(sent_back) == 2
    layer = layer_of(square, feedback=sent_back)
    ct, x = jnp.ones((12, 5)), jnp.asarray(X)
    grads, _ = layer.bwd(layer.fwd(recipe.params, x)[1], ct)
    assert jax.tree.structure(grads) == jax.tree.structure(recipe.params)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"unknown model 'mpl'.*'mlp'"):
        layer_of(Network("mpl", {}))
    with pytest.raises(ValueError, match=r"unknown activation 'rleu'.*'relu'"):
        layer_of(Network("mlp", {"sizes": [2, 2], "activation": "rleu"}))
