import jax
import jax.numpy as jnp
import pytest

import nnjax


def test_mlp_puts_the_activation_between_dense_layers_only():
    model = nnjax.mlp([8, 5, 4, 2], nnjax.relu())
    assert [part.name for part in model.parts] == ["dense(8, 5)", "relu", "dense(5, 4)", "relu", "dense(4, 2)"]
    params = model.init(jax.random.key(0))
    assert model.apply(params, jnp.ones((3, 8))).shape == (3, 2)
    assert nnjax.mlp([8, 2]).parts[-1].name == "dense(8, 2)"


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([5], r"mlp: sizes must list at least inputs and outputs, got \(5,\)"),
        (5, r"mlp: sizes must be a list of positive ints, got int"),
        ([5, 0, 3], r"mlp: sizes\[1\] must be a positive int, got 0"),
        ([5, 2.5, 3], r"mlp: sizes\[1\] must be a positive int, got 2.5"),
    ],
)
def test_bad_sizes_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        nnjax.mlp(sizes)


def test_an_activation_that_was_not_called_is_named():
    with pytest.raises(TypeError, match=r"mlp: expected a Layer, got relu; call the factory, as in relu\(\.\.\.\)"):
        nnjax.mlp([4, 3, 2], nnjax.relu)
