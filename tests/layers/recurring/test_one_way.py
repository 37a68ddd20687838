import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.cases import jittered

MAKE = {"rnn": nnjax.rnn, "gru": nnjax.gru, "lstm": nnjax.lstm, "rg_lru": nnjax.rg_lru}
LENGTHS = [0, 3, 5, 1]


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def state_of(name, *shape):
    return nnjax.LSTMState(normal(7, *shape), normal(8, *shape)) if name == "lstm" else normal(7, *shape)


def cast(tree):
    return jax.tree.map(lambda p: p.astype(jnp.float64) if jnp.issubdtype(p.dtype, jnp.floating) else p, tree)


def one_by_one(layer, params, x, state, cts):
    """(y, last state), and the cotangents of params, x and state, of every sequence alone, cut off at its length."""
    ct_y, ct_last = cts
    ys, lasts, ct_params, ct_xs, ct_states = [], [], [], [], []
    for i, n in enumerate(LENGTHS):
        own, start = x[i : i + 1, :n], jax.tree.map(lambda s, i=i: s[i : i + 1], state)
        (y, last), vjp = jax.vjp(layer.apply, params, (own, start))
        ct = (ct_y[i : i + 1, :n], jax.tree.map(lambda s, i=i: s[i : i + 1], ct_last))
        ct_p, (ct_x, ct_s) = vjp(ct)
        rest = ((0, 0), (0, x.shape[1] - n), (0, 0))
        ys.append(jnp.pad(y, rest))
        ct_xs.append(jnp.pad(ct_x, rest))
        lasts.append(last)
        ct_params.append(ct_p)
        ct_states.append(ct_s)

    def joined(trees):
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *trees)

    return (joined(ys), joined(lasts)), (
        jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), *ct_params),
        joined(ct_xs),
        joined(ct_states),
    )


@pytest.mark.parametrize("name", ["lstm", "rg_lru", "rnn", "gru"])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_padded_sequences_are_the_sequences_alone_whatever_is_in_the_padding(name, x64):
    layer, alone = MAKE[name](3, 2, carry=True, lengths=True), MAKE[name](3, 2, carry=True)
    params = cast(jittered(layer).init(jax.random.key(0)))
    x, state = cast((normal(1, 4, 5, 3), state_of(name, 4, 2)))
    cts = cast((normal(2, 4, 5, 2), state_of(name, 4, 2)))
    right = one_by_one(alone, params, x, state, cts)
    for filling in (jnp.nan, jnp.inf, 3.0):
        padded = jnp.where(jnp.arange(5)[None, :, None] < jnp.array(LENGTHS)[:, None, None], x, filling)
        for own in (layer, nnjax.plain(layer)):
            y, residuals = own.fwd(params, (padded, state, jnp.array(LENGTHS)))
            ct_params, (ct_x, ct_state, none) = own.bwd(residuals, cts)
            assert none is None
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), (y, (ct_params, ct_x, ct_state)), right)
        applied = layer.apply(params, (padded, state, jnp.array(LENGTHS)))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), applied, right[0])


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_full_lengths_are_none(name):
    layer, plain = MAKE[name](3, 2, lengths=True), MAKE[name](3, 2)
    params, x = layer.init(jax.random.key(0)), normal(1, 2, 5, 3)
    np.testing.assert_array_equal(layer.fwd(params, (x, jnp.array([5, 5])))[0], plain.fwd(params, x)[0])


@pytest.mark.parametrize("name", ["rnn", "lstm"])
def test_lengths_that_are_known_only_at_run_time_are_brought_into_range(name):
    layer = MAKE[name](3, 2, carry=True, lengths=True)
    params, x = layer.init(jax.random.key(0)), normal(1, 2, 5, 3)
    run = jax.jit(lambda n: layer.fwd(params, (x, None, n))[0])
    jax.tree.map(np.testing.assert_array_equal, run(jnp.array([-2, 9])), run(jnp.array([0, 5])))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64])
def test_lengths_of_any_integers_and_without_leading_axes(dtype):
    layer = nnjax.gru(3, 2, lengths=True)
    params, x = layer.init(jax.random.key(0)), normal(1, 5, 3)
    y = layer.apply(params, (x, np.array(2, dtype)))
    assert y.shape == (5, 2)
    assert not y[2:].any()


@pytest.mark.in_turn
def test_no_steps_at_all():
    for name, make in MAKE.items():
        layer = make(3, 2, carry=True, lengths=True)
        state = state_of(name, 2, 2)
        x = (jnp.ones((2, 0, 3)), state, jnp.array([0, 0]))
        (y, last), residuals = layer.fwd(layer.init(jax.random.key(0)), x)
        assert y.shape == (2, 0, 2)
        jax.tree.map(np.testing.assert_array_equal, last, state)
        _, (_, ct_state, _) = layer.bwd(residuals, (y, state))
        jax.tree.map(np.testing.assert_array_equal, ct_state, state)


@pytest.mark.in_turn
def test_a_state_that_is_not_held_over_the_padding_is_rejected():
    """What an implementation that runs on through the padding would return."""
    layer, plain = nnjax.lstm(3, 2, carry=True, lengths=True), nnjax.lstm(3, 2, carry=True)
    params = jittered(layer).init(jax.random.key(0))
    x = (normal(1, 2, 5, 3), nnjax.LSTMState(normal(2, 2, 2), normal(3, 2, 2)), jnp.array([5, 2]))

    def fwd(params, x, *, key=None):
        y, residuals = layer.fwd(params, x)
        return (y[0], plain.apply(params, x[:2])[1]), residuals

    only = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}
    nnjax.check_layer(layer, params, x, **only).raise_if_failed()
    assert nnjax.check_layer(layer._replace(fwd=fwd), params, x, **only).failures


def test_what_does_not_fit_is_named():
    layer, both = nnjax.lstm(3, 2, lengths=True), nnjax.lstm(3, 2, lengths=True, carry=True)
    params, x, n = layer.init(jax.random.key(0)), normal(1, 2, 5, 3), jnp.array([5, 2])
    for own, wrong, error, words in (
        (layer, x, TypeError, r"lengths=True x must be the tuple \(x, lengths\), got float32"),
        (layer, (x, None, n), TypeError, r"tuple \(x, lengths\), got tuple"),
        (both, (x, n), TypeError, r"carry=True and lengths=True x must be the tuple \(x, state, lengths\)"),
        (layer, (x, n.astype(jnp.float32)), TypeError, "lengths must be integers"),
        (layer, (x, n[:1]), ValueError, r"lengths must have shape \(2,\)"),
        (layer, (x, n + 1), ValueError, "lengths must be from 0 to 5, .*got 3 to 6"),
        (layer, (x, n - 3), ValueError, "lengths must be from 0 to 5"),
        (layer, (x, [5, 2]), TypeError, "lengths must be an array"),
    ):
        for call in (own.apply, own.fwd):
            with pytest.raises(error, match=f"lstm.*: .*{words}"):
                call(params, wrong)
