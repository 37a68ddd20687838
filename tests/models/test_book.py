import jax
import jax.numpy as jnp
import pytest

import nnjax
from nnjax import nielsen
from nnjax.models.book import book

SIZES = [5, 4, 3]


@pytest.mark.in_turn
def test_it_is_the_books_network_in_rows_with_a_backward_by_hand():
    layer = book(SIZES)
    params = layer.init(jax.random.key(0))
    assert isinstance(params, nielsen.Params)
    x = jax.random.normal(jax.random.key(1), (6, 5))
    assert jnp.array_equal(layer.apply(params, x).T, nielsen.feedforward(params, x.T))
    assert layer.apply(params, x[0]).shape == (3,)
    assert layer.apply(params, x.reshape(2, 3, 5)).shape == (2, 3, 3)
    report = nnjax.check_layer(layer, params, x, dtypes=("float32",), transforms=("eager",))
    report.raise_if_failed()


def test_invalid_sizes_are_refused():
    with pytest.raises(ValueError, match=r"at least inputs and outputs"):
        book([5])
