import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.cases import jittered

MAKE = {"rnn": nnjax.rnn, "gru": nnjax.gru, "lstm": nnjax.lstm, "rg_lru": nnjax.rg_lru}
ONLY = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_layers_above_each_other_are_a_serial_of_them(name):
    layer = MAKE[name](3, 2, layers=3)
    params, x = jittered(layer).init(jax.random.key(0)), normal(1, 2, 5, 3)
    row = nnjax.serial(MAKE[name](3, 2), MAKE[name](2, 2), MAKE[name](2, 2))
    (y, kept), (right, right_kept) = layer.fwd(params, x), row.fwd(params, x)
    np.testing.assert_allclose(y, right, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), layer.bwd(kept, y), row.bwd(right_kept, y))


@pytest.mark.slow
@pytest.mark.in_turn
def test_both_ways_a_higher_layer_reads_both_outputs_of_the_one_below():
    layer = nnjax.lstm(3, 2, layers=2, bidirectional=True)
    params, x = jittered(layer).init(jax.random.key(0)), normal(1, 2, 5, 3)
    low, high = nnjax.lstm(3, 2, bidirectional=True), nnjax.lstm(4, 2, bidirectional=True)
    np.testing.assert_allclose(layer.apply(params, x), high.apply(params[1], low.apply(params[0], x)), rtol=1e-6)
    nnjax.check_layer(layer, params, x, **ONLY).raise_if_failed()


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_run_in_two_parts_is_one_run_with_a_state_for_each_layer():
    whole, part = nnjax.lstm(3, 2, layers=2), nnjax.lstm(3, 2, layers=2, carry=True)
    params, x = whole.init(jax.random.key(0)), normal(3, 2, 7, 3)
    first, state = part.apply(params, (x[:, :4], None))
    assert [type(s) for s in state] == [nnjax.LSTMState] * 2
    (second, _), residuals = part.fwd(params, (x[:, 4:], state))
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), whole.apply(params, x), rtol=1e-5, atol=1e-6)
    _, (_, ct_state) = part.bwd(residuals, (second, None))
    assert jax.tree.structure(ct_state) == jax.tree.structure(state)
    _, residuals = part.fwd(params, (x, None))
    assert part.bwd(residuals, (whole.apply(params, x), None))[1][1] is None


@pytest.mark.in_turn
def test_dropout_is_between_layers_and_not_after_the_last():
    layer = nnjax.rnn(3, 64, layers=2, dropout=0.5)
    params, x, key = layer.init(jax.random.key(0)), normal(1, 1, 9, 3), jax.random.key(5)
    plain = nnjax.rnn(3, 64, layers=2)
    np.testing.assert_array_equal(layer.apply(params, x), plain.apply(params, x))  # without a key nothing is dropped
    y = layer.apply(params, x, key=key)
    assert jnp.abs(y).min() > 0
    assert not jnp.allclose(y, plain.apply(params, x))
    below = nnjax.rnn(3, 64).apply(params[0], x)
    mask = np.asarray(jnp.where(layer.parts[-1].apply((), below, key=jax.random.split(key, 2)[0]) == 0, 0.0, 2.0))
    assert 0.3 < (mask == 0).mean() < 0.7
    np.testing.assert_allclose(y, nnjax.rnn(64, 64).apply(params[1], below * mask), rtol=1e-5, atol=1e-6)
    nnjax.check_layer(layer, params, x, key=key, **ONLY).raise_if_failed()


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_wrong_layer_inside_is_named():
    layer = jittered(nnjax.gru(3, 2, layers=2, bidirectional=True))
    params, x = layer.init(jax.random.key(0)), normal(1, 2, 3, 3)
    from nnjax.layer import with_part

    part = layer.parts[1].parts[0]
    wrong = part._replace(bwd=lambda r, ct: jax.tree.map(lambda g: -g, part.bwd(r, ct)))
    report = nnjax.check_layer(with_part(layer, 1, with_part(layer.parts[1], 0, wrong)), params, x, **ONLY)
    assert {row.layer for row in report.failures if row.layer} == {"1/forward:gru(4, 2)"}


@pytest.mark.in_turn
def test_options_that_make_no_sense_are_named():
    for options, error, words in (
        ({"dropout": 0.5}, ValueError, "dropout acts between layers"),
        ({"dropout": 1.0, "layers": 2}, ValueError, "rate"),
        ({"layers": 0}, ValueError, "layers must be a positive int"),
        ({"bidirectional": 2}, TypeError, "bidirectional must be True or False"),
        ({"lengths": [3]}, TypeError, "lengths must be True or False"),
    ):
        for name, make in MAKE.items():
            with pytest.raises(error, match=f"{name}: .*{words}"):
                make(3, 2, **options)
    layer = nnjax.gru(3, 2, layers=2, carry=True)
    params, x = layer.init(jax.random.key(0)), normal(1, 2, 5, 3)
    with pytest.raises(TypeError, match="state must be a tuple with one entry for each of its 2 layers, got float32"):
        layer.apply(params, (x, jnp.zeros((2, 2))))
    with pytest.raises(TypeError, match="params must be a tuple with one entry for each of its 2 layers, got GRUParams"):
        layer.apply(params[0], (x, None))


@pytest.mark.in_turn
def test_a_cotangent_that_is_no_pair_is_named():
    layer = nnjax.lstm(3, 2, bidirectional=True, carry=True)
    _, residuals = layer.fwd(layer.init(jax.random.key(0)), (normal(1, 2, 5, 3), None))
    with pytest.raises(TypeError, match=r"lstm.*pair"):
        layer.bwd(residuals, 3)
