import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import ops

MAKE = {"rnn": nnjax.rnn, "gru": nnjax.gru, "lstm": nnjax.lstm, "rg_lru": nnjax.rg_lru}


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def along(a, b, h0, axis, reverse):
    """The loop in NumPy along any axis."""
    a, b = (np.moveaxis(np.asarray(v), axis, 0) for v in (a, b))
    h, y = np.zeros(b.shape[1:]) if h0 is None else np.asarray(h0), np.zeros_like(b)
    for t in range(len(a))[:: -1 if reverse else 1]:
        y[t] = h = a[t] * h + b[t]
    return np.moveaxis(y, 0, axis)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis"), [((5,), 0), ((5,), -1), ((3, 4), -1), ((3, 4), 0), ((2, 3, 4, 2), 1), ((2, 3, 4), -3)]
)
@pytest.mark.repeats
def test_the_recurrence_runs_along_any_axis(shape, axis, reverse, x64):
    a, b = 0.9 * normal(*shape), normal(*shape, seed=1)
    for h0 in (None, normal(*(n for i, n in enumerate(shape) if i != axis % len(shape)), seed=2)):
        y = ops.linear_recurrence(a, b, h0, axis=axis, reverse=reverse)
        np.testing.assert_allclose(y, along(a, b, h0, axis, reverse), atol=1e-12)


def test_its_gradient_is_that_of_a_scan(x64):
    a, b, h0 = 0.9 * normal(2, 6, 3), normal(2, 6, 3, seed=1), normal(2, 3, seed=2)

    def scanned(a, b, h0):
        def step(h, now):
            h = now[0] * h + now[1]
            return h, h

        return jnp.moveaxis(jax.lax.scan(step, h0, (jnp.moveaxis(a, 1, 0), jnp.moveaxis(b, 1, 0)))[1], 0, 1)

    ct = normal(2, 6, 3, seed=3)
    ours, theirs = (
        jax.grad(lambda *x, f=f: (f(*x) * ct).sum(), (0, 1, 2))(a, b, h0)
        for f in (lambda a, b, h0: ops.linear_recurrence(a, b, h0, axis=1), scanned)
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12), ours, theirs)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_each_is_its_layer_with_the_parameters_given(name, x64):
    layer = MAKE[name](3, 2, carry=True, lengths=True)
    params = jax.tree.map(lambda p: jnp.asarray(np.random.default_rng(p.size).standard_normal(p.shape)),
                          layer.init(jax.random.key(0)))  # fmt: skip
    x, lengths = normal(2, 5, 3), jnp.array([5, 3])
    state = nnjax.LSTMState(normal(2, 2), normal(2, 2, seed=1)) if name == "lstm" else normal(2, 2)
    run = getattr(ops, name)

    def both(f):
        y, vjp = jax.vjp(f, params, x, state)
        return y, vjp(jax.tree.map(jnp.sin, y))

    ours = both(lambda p, x, s: run(x, s, *p, lengths=lengths))
    theirs = both(lambda p, x, s: layer.apply(p, (x, s, lengths)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), ours, theirs)
    assert jax.vmap(lambda x: run(x, None, *params)[0])(x).shape == (2, 5, 2)


@pytest.mark.in_turn
def test_biases_that_are_left_out_are_zero_and_a_pair_is_a_state_of_lstm():
    x, w, u = (normal(*shape).astype(jnp.float32) for shape in ((2, 5, 3), (3, 8), (2, 8)))
    h, c = (normal(2, 2, seed=s).astype(jnp.float32) for s in (1, 2))
    found = ops.lstm(x, (h, c), w, u)
    right = ops.lstm(x, nnjax.LSTMState(h, c), w, u, jnp.zeros(8))
    jax.tree.map(np.testing.assert_array_equal, found, right)
    assert isinstance(found[1], nnjax.LSTMState)
    assert ops.gru(x, None, w[:, :6], u[:, :6])[0].shape == (2, 5, 2)
    with_relu = ops.rnn(x, None, w[:, :2], u[:, :2], activation="relu", truncate=2)[0]
    assert with_relu.min() == 0


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_rules_pass_an_audit():
    a, b, x, w = (normal(*shape).astype(jnp.float32) for shape in ((2, 4, 3), (2, 4, 3), (2, 3, 3), (3, 6)))

    def run(a, b, x, w):
        y, _ = ops.rg_lru(x, None, w, None, w[0, :2])
        return ops.linear_recurrence(a, b).sum() + (y**2).sum()

    nnjax.audit(run, a, b, x, w).raise_if_failed()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x, w: ops.linear_recurrence(x, x, axis=3), ValueError, "axis must be one of the 3"),
        (lambda x, w: ops.linear_recurrence(x, x, axis=True), ValueError, "axis"),
        (lambda x, w: ops.linear_recurrence(x, x[0]), ValueError, r"b must have shape \(2, 5, 3\)"),
        (lambda x, w: ops.linear_recurrence(x, x, x), ValueError, r"h0 must have shape \(2, 3\)"),
        (lambda x, w: ops.lstm(x, None, w, w), ValueError, r"n_in, 4 n_hidden"),
        (lambda x, w: ops.gru(x, None, w[0], w), ValueError, r"n_in, 3 n_hidden"),
        (lambda x, w: ops.gru(x, None, w, w, lengths=jnp.array([7, 1])), ValueError, "lengths must be from 0 to 5"),
        (lambda x, w: ops.rnn(x, None, "w", w), TypeError, "w must be an array"),
        (lambda x, w: ops.rnn(x, None, w, w, activation="gelu"), ValueError, "activation of rnn"),
    ],
)
def test_what_does_not_fit_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call(jnp.ones((2, 5, 3)), jnp.ones((3, 6)))
