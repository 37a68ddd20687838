import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.cases import jittered

MAKE = {"rnn": nnjax.rnn, "gru": nnjax.gru, "lstm": nnjax.lstm, "rg_lru": nnjax.rg_lru}


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_it_is_two_layers_of_which_one_reads_from_the_end(name):
    both, one = MAKE[name](3, 2, bidirectional=True, carry=True), MAKE[name](3, 2, carry=True)
    params, x = jittered(both).init(jax.random.key(0)), normal(1, 2, 5, 3)
    (y, (last, last_back)), _ = both.fwd(params, (x, None))
    ahead, ahead_last = one.apply(params[0], (x, None))
    back, back_last = one.apply(params[1], (x[:, ::-1], None))
    np.testing.assert_allclose(y, jnp.concatenate([ahead, back[:, ::-1]], -1), rtol=1e-5, atol=1e-6)
    for found, right in ((last, ahead_last), (last_back, back_last)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, right)
    np.testing.assert_allclose(MAKE[name](3, 2, bidirectional=True).apply(params, x), y, rtol=1e-5, atol=1e-6)


def test_the_two_directions_start_with_different_weights():
    forward, backward = nnjax.lstm(3, 2, bidirectional=True).init(jax.random.key(0))
    assert jnp.abs(forward.w - backward.w).min() > 0


@pytest.mark.in_turn
def test_with_lengths_the_second_layer_starts_at_the_last_real_step():
    layer = nnjax.lstm(3, 2, bidirectional=True, carry=True, lengths=True)
    params, x = jittered(layer).init(jax.random.key(0)), normal(1, 2, 5, 3)
    (y, last), _ = layer.fwd(params, (x.at[0, 3:].set(jnp.nan), None, jnp.array([3, 5])))
    alone = nnjax.lstm(3, 2, bidirectional=True, carry=True)
    right, right_last = alone.apply(params, (x[:1, :3], None))
    np.testing.assert_allclose(y[0, :3], right[0], rtol=1e-5, atol=1e-6)
    assert not y[0, 3:].any()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[:1], b, rtol=1e-5, atol=1e-6), last, right_last)


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_backward_that_does_not_turn_back_is_rejected_and_the_combination_named():
    layer = jittered(nnjax.gru(3, 2, bidirectional=True))
    params, x = layer.init(jax.random.key(0)), normal(1, 2, 4, 3)
    only = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}
    nnjax.check_layer(layer, params, x, **only).raise_if_failed()

    def wrong(residuals, ct_y):
        return layer.bwd(residuals, jnp.concatenate([ct_y[..., :2], ct_y[:, ::-1, 2:]], -1))

    report = nnjax.check_layer(layer._replace(bwd=wrong), params, x, **only)
    assert report.failures
    assert "combination" in str(report)


def test_what_is_no_pair_is_named():
    layer = nnjax.lstm(3, 2, bidirectional=True, carry=True)
    params, x = layer.init(jax.random.key(0)), normal(1, 2, 5, 3)
    state = nnjax.LSTMState(jnp.zeros((2, 2)), jnp.zeros((2, 2)))
    with pytest.raises(TypeError, match="state must be a pair, one for each direction, got LSTMState"):
        layer.apply(params, (x, state))
    with pytest.raises(TypeError, match="params must be a pair, one for each direction, got LSTMParams"):
        layer.apply(params[0], (x, None))
    y, residuals = layer.fwd(params, (x, (state, state)))
    with pytest.raises(ValueError, match=r"ct_y must have the shape of the output, \(2, 5, 4\)"):
        layer.bwd(residuals, (y[0][..., :2], y[1]))
