import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import layers
from nnjax.bench.rows.recurrences import _by_pairs, _decaying, _of_lengths, recurrences


def test_no_row_may_be_slower_or_larger_than_autodiff():
    assert len(recurrences()) == 5
    assert all(row.time <= 1.02 and row.temp <= 1.0 for row in recurrences())


@pytest.mark.in_turn
def test_what_stands_beside_the_recurrence_is_the_recurrence():
    x = _decaying(2, 9, 3)(jax.random.key(0))
    assert (x[0] > 0).all()
    assert (x[0] < 1).all()
    np.testing.assert_allclose(_by_pairs((), x), layers.linear_recurrence().apply((), x), rtol=1e-5, atol=1e-5)


@pytest.mark.in_turn
def test_the_lengths_are_from_a_quarter_of_the_time_to_all_of_it():
    layer = _of_lengths(layers.gru(2, 3, lengths=True), 3, 8)
    y, residuals = layer.fwd(layer.init(jax.random.key(0)), jnp.ones((3, 8, 2)))
    assert (y != 0).any(-1).sum(-1).tolist() == [2, 5, 8]
    assert layer.bwd(residuals, y)[1].shape == (3, 8, 2)
