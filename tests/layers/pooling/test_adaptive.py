import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.cases import hard

QUICK = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}


@pytest.mark.parametrize(
    ("places", "space"), [(3, (7,)), ((2, 3), (5, 3)), ((4, None), (3, 2)), ((1, 2, 1), (2, 3, 2))], ids=str
)
def test_each_place_is_the_mean_of_its_window(places, space):
    layer, x = nnjax.adaptive_avg_pool(places), hard(np.random.default_rng(0), (2, *space, 3))
    asked = places if isinstance(places, tuple) else (places,)
    sizes = tuple(n if m is None else m for m, n in zip(asked, space))
    y = np.zeros((2, *sizes, 3))
    for p in np.ndindex(sizes):
        cut = tuple(slice(i * n // m, -(-(i + 1) * n // m)) for i, n, m in zip(p, space, sizes))
        y[(slice(None), *p)] = np.asarray(x)[(slice(None), *cut)].mean(tuple(range(1, 1 + len(space))))
    np.testing.assert_allclose(layer.apply((), x), y, rtol=1e-5, atol=1e-5)
    nnjax.check_layer(layer, (), x, **QUICK).raise_if_failed()


@pytest.mark.parametrize("lead", [(), (0,), (2, 3)], ids=str)
def test_leading_axes(lead):
    layer, x = nnjax.adaptive_avg_pool((2, 3)), hard(np.random.default_rng(1), (*lead, 3, 4, 2))
    assert not nnjax.check_layer(layer, (), x, **QUICK).failures


def test_one_place_is_the_global_mean_also_in_low_precision():
    x = jnp.ones((64, 64, 1), jnp.bfloat16)
    assert nnjax.adaptive_avg_pool((1, 1)).apply((), x)[0, 0, 0] == nnjax.global_avg_pool().apply((), x)[0] == 1.0


def test_a_share_of_the_whole_in_place_of_the_window_is_rejected():
    layer, x = nnjax.adaptive_avg_pool(2), hard(np.random.default_rng(2), (2, 5, 2))

    def bwd(residuals, ct_y):
        return (), jnp.repeat(ct_y, 3, -2)[:, :5] / 3  # the middle belongs to both windows

    assert nnjax.check_layer(layer._replace(bwd=bwd), (), x, **QUICK).failures


@pytest.mark.parametrize("places", [0, (1, 2, 3, 4), 1.5, (), "2"], ids=str)
def test_other_places_are_refused(places):
    with pytest.raises(ValueError, match="adaptive_avg_pool: places must be"):
        nnjax.adaptive_avg_pool(places)


def test_an_input_without_the_axes_is_refused():
    with pytest.raises(ValueError, match=r"adaptive_avg_pool: x must have shape \(..., height, width, channels\)"):
        nnjax.adaptive_avg_pool((2, 2)).apply((), jnp.zeros((3, 2)))
    with pytest.raises(ValueError, match="no axis of space empty"):
        nnjax.adaptive_avg_pool(2).apply((), jnp.zeros((0, 2)))
