import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.cases import jittered
from nnjax.layer import cuts_gradient

MAKE = {"rnn": nnjax.rnn, "gru": nnjax.gru, "lstm": nnjax.lstm}
QUICK = {"dtypes": ["float64"], "transforms": ["jit"]}


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def parts(layer, params, x, k):
    """The sum over all entries of y, each part of k steps from the last state of the one before, taken as given."""
    state, total = None, 0.0
    for start in range(0, x.shape[1], k):
        y, state = layer.apply(params, (x[:, start : start + k], state))
        total = total + (y * jnp.arange(1.0, 1 + y.size).reshape(y.shape)).sum()
        state = jax.lax.stop_gradient(state)
    return total


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize(("time", "k"), [(6, 3), (7, 3), (5, 1), (3, 4)])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_its_gradient_is_that_of_parts_run_one_after_another(name, time, k, x64):
    layer, carried = MAKE[name](3, 2, truncate=k), MAKE[name](3, 2, carry=True)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), jittered(layer).init(jax.random.key(0)))
    x = jnp.asarray(normal(1, 2, time, 3), jnp.float64)
    right = jax.grad(parts, argnums=(1, 2))(carried, params, x, k)
    weights = [jnp.arange(1.0, 1 + 2 * min(k, time - s) * 2).reshape(2, -1, 2) for s in range(0, time, k)]
    for own in (layer, nnjax.plain(layer)):
        y, residuals = own.fwd(params, x)
        found = own.bwd(residuals, jnp.concatenate(weights, 1))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(y, MAKE[name](3, 2).apply(params, x), rtol=1e-12)


@pytest.mark.in_turn
def test_as_many_steps_as_there_are_cut_nothing():
    whole, cut = nnjax.lstm(3, 2), nnjax.lstm(3, 2, truncate=5)
    params, x = whole.init(jax.random.key(0)), normal(1, 2, 5, 3)
    (y, kept), (_, kept_whole) = cut.fwd(params, x), whole.fwd(params, x)
    jax.tree.map(np.testing.assert_array_equal, cut.bwd(kept, y), whole.bwd(kept_whole, y))


@pytest.mark.in_turn
def test_the_state_before_the_first_step_is_not_cut_and_its_cotangent_ends_at_the_first_cut():
    layer = nnjax.gru(3, 2, carry=True, truncate=2)
    params, x, h = layer.init(jax.random.key(0)), normal(1, 1, 4, 3), normal(2, 1, 2)
    f = nnjax.as_custom_vjp(layer)
    first, second = (jax.grad(lambda h, t=t: f(params, (x, h))[0][0, t].sum())(h) for t in (1, 2))
    assert jnp.abs(first).min() > 0
    assert not second.any()


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_check_passes_it_and_says_that_values_are_not_asked():
    layer = nnjax.rnn(2, 2, truncate=2)
    params, x = jittered(layer).init(jax.random.key(0)), normal(1, 2, 5, 2)
    report = nnjax.check_layer(layer, params, x, **QUICK)
    assert report.ok
    assert any("taylor" in note and "cuts" in note for note in report.notes)
    whole = nnjax.rnn(2, 2)
    assert nnjax.check_layer(whole._replace(bwd=layer.bwd, fwd=layer.fwd), params, x, **QUICK).failures


def test_only_what_is_truncated_cuts():
    assert cuts_gradient(nnjax.char_rnn(5, 3, truncate=2))
    assert cuts_gradient(nnjax.plain(nnjax.lstm(3, 2, truncate=2)))
    assert cuts_gradient(nnjax.gru(3, 2, truncate=2, bidirectional=True))
    assert not cuts_gradient(nnjax.char_rnn(5, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKE)
@pytest.mark.in_turn
def test_everything_passes_with_a_rest(name):
    layer = jittered(MAKE[name](3, 2, carry=True, lengths=True, truncate=4))
    x = normal(1, 3, 11, 3), None, jnp.array([11, 5, 0])
    nnjax.check_layer(layer, layer.init(jax.random.key(0)), x).raise_if_failed()


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_what_is_no_number_of_steps_is_refused(k):
    with pytest.raises(ValueError, match="lstm: truncate must be a positive int"):
        nnjax.lstm(3, 2, truncate=k)
