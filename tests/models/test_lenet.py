import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax


@pytest.mark.in_turn
def test_lenet_is_the_network_of_chapter_six():
    model = nnjax.lenet(hidden=(100, 50), dropout=0.5, activation=nnjax.tanh())
    features, *rest = model.parts
    assert [part.name.split("(")[0] for part in (*features.parts, *rest)] == [
        "conv", "max_pool", "tanh", "conv", "max_pool", "tanh", "flatten",
        "dropout", "dense", "tanh", "dropout", "dense", "tanh", "dropout", "dense",
    ]  # fmt: skip
    params = nnjax.lenet().init(jax.random.key(0))
    assert [p.shape for p in jax.tree.leaves(params)] == [
        (5, 5, 1, 20), (20,), (5, 5, 20, 40), (40,), (640, 100), (100,), (100, 10), (10,),
    ]  # fmt: skip
    x = jax.random.normal(jax.random.key(1), (2, 3, 28, 28, 1))
    y = nnjax.lenet().apply(params, x)
    assert y.shape == (2, 3, 10)
    np.testing.assert_allclose(nnjax.lenet().fwd(params, x)[0], y, rtol=1e-5)


def test_lenet_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"lenet: an image of 12 x 28 is too small for 2 convolutions.* at least 16 x 16"):
        nnjax.lenet(image=(12, 28, 1))
    with pytest.raises(ValueError, match=r"lenet: image must be \(height, width, channels\), got \(28, 28\)"):
        nnjax.lenet(image=(28, 28))
    with pytest.raises(ValueError, match=r"lenet: channels\[1\] must be a positive int, got 0"):
        nnjax.lenet(channels=(20, 0))
    with pytest.raises(ValueError, match=r"lenet: hidden\[0\] must be a positive int, got 1.5"):
        nnjax.lenet(hidden=(1.5,))


@pytest.mark.parametrize("channels", [(2,), (2, 3), (2, 3, 4)])
def test_the_least_size_in_the_message_fits_and_one_less_does_not(channels):
    least = (6, 16, 36)[len(channels) - 1]
    model = nnjax.lenet(3, channels=channels, hidden=4, image=(least, least + 3, 3))
    x = jnp.zeros((2, least, least + 3, 3))
    assert jax.eval_shape(lambda: model.apply(model.init(jax.random.key(0)), x)).shape == (2, 3)
    with pytest.raises(ValueError, match=f"at least {least} x {least}"):
        nnjax.lenet(3, channels=channels, image=(least - 1, least, 3))
