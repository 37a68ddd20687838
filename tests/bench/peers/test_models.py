import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import models
from nnjax.bench import peers
from nnjax.bench.peers import equinox, flax, pytorch

IMAGES = jax.random.normal(jax.random.key(0), (3, 28, 28, 1))
LABELS = jnp.array([1, 0, 2], jnp.int32)
IDS = jnp.array([[1, 4, 2, 0], [3, 3, 0, 1]], jnp.int32)
SIZES = {"mlp": ([6, 5, 3],), "lenet": ((2, 3), 4), "char_rnn": (5, 8), "gpt": (5, 4, 2, 2, 8)}
BUILDERS = {
    "mlp": lambda: peers.mlp([6, 5, 3], IMAGES[:, 0, :6, 0], LABELS),
    "char_rnn": lambda: peers.char_rnn(5, 8, IDS, IDS[::-1]),
    "lenet": lambda: peers.lenet(IMAGES, LABELS, (2, 3), 4),
    "gpt": lambda: peers.gpt(5, 4, 2, 2, 8, IDS, IDS[::-1]),
}
INPUTS = {"mlp": IMAGES[:, 0, :6, 0], "lenet": IMAGES, "char_rnn": IDS, "gpt": IDS}
OURS = {
    "mlp": models.mlp([6, 5, 3]), "lenet": models.lenet(channels=(2, 3), hidden=4), "char_rnn": models.char_rnn(5, 8),
    "gpt": models.gpt(5, 4, 2, 2, 8),
}  # fmt: skip


def needs(library):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


@pytest.mark.parametrize("library", ["torch", "flax", "equinox"])
@pytest.mark.parametrize("model", BUILDERS)
@pytest.mark.repeats
def test_every_step_lowers_the_loss(model, library):
    needs(library)
    run = BUILDERS[model]()[library]()
    values = [float(run()[1]) for _ in range(21)]
    assert np.isfinite(values).all()
    assert values[-1] < values[0]


def sizes_of(library, model):
    """The number of numbers in every array of parameters."""
    if library == "torch":
        return [p.numel() for p in getattr(pytorch, model)(*SIZES[model]).parameters()]
    if library == "equinox":
        import equinox as eqx

        return [p.size for p in jax.tree.leaves(eqx.filter(getattr(equinox, model)(*SIZES[model]), eqx.is_array))]
    module = getattr(flax, model)(*SIZES[model])
    return [p.size for p in jax.tree.leaves(jax.eval_shape(module.init, jax.random.key(0), INPUTS[model]))]


@pytest.mark.parametrize("library", ["torch", "flax", "equinox"])
@pytest.mark.parametrize("model", BUILDERS)
def test_every_peer_has_as_many_parameters_as_ours(model, library):
    needs(library)
    ours = sum(p.size for p in jax.tree.leaves(jax.eval_shape(OURS[model].init, jax.random.key(0))))
    second_bias = 4 * 8 if (model, library) == ("char_rnn", "torch") else 0
    assert sum(sizes_of(library, model)) == ours + second_bias


@pytest.mark.parametrize("model", BUILDERS)
def test_every_model_has_the_same_peers(model):
    assert list(BUILDERS[model]()) == ["torch", "torch.compile", "flax", "equinox"]
