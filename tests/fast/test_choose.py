import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.fast.choose import by_platform


def f(x):
    return by_platform(x, plain=lambda x: x + 1, cpu=lambda x: x + 2, cuda=lambda x: x + 3)


def test_the_platform_of_the_program_chooses_not_the_default_device():
    assert f(jnp.float32(0)) == jax.jit(f)(jnp.float32(0)) == 2
    for platform, added in (("cpu", "2.0"), ("cuda", "3.0"), ("tpu", "1.0")):
        text = jax.jit(f).trace(jnp.zeros((3,), jnp.float32)).lower(lowering_platforms=(platform,)).as_text()
        assert f"{added}" in text.replace("2.000000e+00", "2.0").replace("3.000000e+00", "3.0").replace("1.000000e+00", "1.0")


def test_what_is_not_chosen_leaves_nothing_behind():
    text = jax.jit(f).lower(jnp.zeros((3,), jnp.float32)).compile().as_text()
    assert "conditional" not in text
    assert "constant(3)" not in text


COSTLY = ("convolution", "dot_general", "while", "reduce_window", "pad", "exponential", "select")


LAYERS = {
    "conv": (nnjax.conv(8, 4, (3, 3), groups=2), (2, 9, 7, 8)),
    "depthwise": (nnjax.conv(8, 8, (3, 3), groups=8), (2, 9, 7, 8)),
    "max_pool": (nnjax.max_pool(3, 2), (2, 9, 4)),
    "avg_pool": (nnjax.avg_pool((2, 2)), (2, 9, 7, 4)),
    "gru": (nnjax.gru(4, 3), (2, 40, 4)),
    "attention": (nnjax.attention(8, 2), (2, 9, 8)),
}


@pytest.mark.parametrize(
    ("name", "platform"), [(n, p) for n in LAYERS for p in ("cuda", "tpu") if (n, p) != ("max_pool", "tpu")]
)
@pytest.mark.repeats
def test_elsewhere_the_program_is_that_of_the_plain_pair(name, platform):
    layer, shape = LAYERS[name]
    params, x = layer.init(jax.random.key(0)), jnp.zeros(shape)

    def costly(layer):
        def step(params, x):
            y, residuals = layer.fwd(params, x)
            return y, residuals, layer.bwd(residuals, y)  # with the residuals: a compiler drops unused results

        text = jax.jit(step).trace(params, x).lower(lowering_platforms=(platform,)).as_text()
        return Counter(found for found in re.findall(r"stablehlo\.(\w+)", text) if found in COSTLY)

    assert costly(layer) == costly(nnjax.plain(layer))
    assert sum(costly(layer).values())


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_plain_pair_is_found_inside_compositions_and_keeps_name_and_definition():
    model = nnjax.lenet(3, channels=(2,), hidden=4, image=(8, 8, 1))
    slow = nnjax.plain(model)
    assert slow.name == "lenet"
    assert slow.apply is model.apply
    params, x = model.init(jax.random.key(0)), jnp.asarray(np.random.default_rng(0).random((16, 8, 8, 1)), jnp.float32)
    for one, other in zip(
        *(jax.tree.leaves(m.bwd(m.fwd(params, x)[1], jnp.ones((16, 3)))) for m in (model, slow)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    only = nnjax.serial(nnjax.gelu(), nnjax.layer_norm(2))  # of one pair each
    assert nnjax.plain(only) is only
