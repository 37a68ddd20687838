import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import nnjax
from nnjax.train import init_state, make_epoch, make_step
from nnjax.train.step import shuffled

MODEL, LOSS = nnjax.mlp([4, 5, 3], nnjax.tanh()), nnjax.softmax_cross_entropy()
X, LABELS = jax.random.normal(jax.random.key(1), (50, 4)), jnp.arange(50) % 3


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lamb", "lion", "rmsprop", "dog", "lbfgs"])
@pytest.mark.repeats
def test_any_optax_optimizer_steps_under_strict_promotion(name):
    optimizer = optax.lbfgs() if name == "lbfgs" else optax.contrib.dog(1.0) if name == "dog" else getattr(optax, name)(0.01)
    params = MODEL.init(jax.random.key(0))
    state = init_state(params, optimizer, jax.random.key(1))
    step = jax.jit(make_step(nnjax.value_and_grad(MODEL, LOSS), optimizer))
    first = None
    for _ in range(30):
        state, value = step(state, X, LABELS)
        first = value if first is None else first
    assert value < first
    assert int(state.step) == 30


@pytest.mark.in_turn
def test_a_step_of_sgd_is_params_minus_rate_times_gradient():
    params = MODEL.init(jax.random.key(0))
    optimizer = optax.sgd(0.5)
    weights = jnp.ones(50).at[3].set(0)
    state, value = make_step(nnjax.value_and_grad(MODEL, LOSS), optimizer)(
        init_state(params, optimizer, jax.random.key(1)), X, LABELS, weights
    )
    expected, grads = nnjax.reference_value_and_grad(MODEL, LOSS)(params, X, LABELS, weights=weights)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    jax.tree.map(
        lambda new, p, g: np.testing.assert_allclose(new, p - 0.5 * g, rtol=1e-5, atol=1e-6),
        state.params,
        params,
        grads,
    )


def test_every_example_at_most_once_and_another_order_each_time():
    orders = [np.asarray(shuffled(jax.random.key(i), 50, 8)) for i in range(2)]
    for order in orders:
        assert order.shape == (6, 8)
        assert len(np.unique(order)) == 48
    assert (orders[0] != orders[1]).any()


@pytest.mark.slow
@pytest.mark.in_turn
def test_an_epoch_is_its_steps_one_after_another_and_leaves_the_callers_params_alone():
    optimizer = optax.adam(0.01)
    params = MODEL.init(jax.random.key(0))
    step = make_step(nnjax.value_and_grad(MODEL, LOSS), optimizer)
    state = init_state(params, optimizer, jax.random.key(1))
    slow, values = state, []
    order = shuffled(jax.random.fold_in(jax.random.fold_in(state.key, 1), 0), 50, 8)
    for rows in order:
        slow, value = step(slow, X[rows], LABELS[rows])
        values.append(value)
    fast, mean = make_epoch(step, 8)(init_state(params, optimizer, jax.random.key(1)), X, LABELS)
    np.testing.assert_allclose(mean, np.mean(values), rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), fast.params, slow.params)
    assert all(not p.is_deleted() for p in jax.tree.leaves(params))


@pytest.mark.in_turn
def test_an_epoch_gives_its_buffers_away():
    optimizer = optax.sgd(0.1)
    state = init_state(MODEL.init(jax.random.key(0)), optimizer, jax.random.key(1))
    make_epoch(make_step(nnjax.value_and_grad(MODEL, LOSS), optimizer), 8)(state, X, LABELS)
    assert all(p.is_deleted() for p in jax.tree.leaves(state.params))


@pytest.mark.in_turn
def test_dropout_draws_another_mask_at_each_step():
    model = nnjax.serial(nnjax.dropout(0.5), nnjax.dense(4, 3))
    optimizer = optax.sgd(0.0)
    step = make_step(nnjax.value_and_grad(model, LOSS), optimizer)
    state = init_state(model.init(jax.random.key(0)), optimizer, jax.random.key(1))
    state, first = step(state, X, LABELS)
    _, second = step(state, X, LABELS)
    assert first != second


@pytest.mark.parametrize("optimizer", [optax.lbfgs(), optax.contrib.dog(1.0), optax.contrib.reduce_on_plateau()])
@pytest.mark.slow
@pytest.mark.in_turn
def test_an_epoch_accepts_optimizers_that_use_values_or_keep_the_parameters(optimizer):
    step = make_step(nnjax.value_and_grad(MODEL, LOSS), optimizer)
    state = init_state(MODEL.init(jax.random.key(0)), optimizer, jax.random.key(1))
    state, mean = make_epoch(step, 10)(state, X, LABELS)
    assert np.isfinite(mean)
    assert int(state.step) == 5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_mean_of_an_epoch_in_low_precision_is_taken_in_float32(dtype):
    def constant(params, x, labels, *, weights=None, key=None):
        return x.mean().astype(dtype), jax.tree.map(jnp.zeros_like, params)

    x = jnp.where(jnp.arange(1000) % 1000 == 7, 1000.0, 1.0)[:, None]
    optimizer = optax.sgd(0.1)
    epoch = make_epoch(make_step(constant, optimizer), 1)
    _, value = epoch(init_state({"w": jnp.ones(1, dtype)}, optimizer, jax.random.key(0)), x, jnp.zeros(1000, jnp.int32))
    assert value.dtype == jnp.float32
    assert float(value) == pytest.approx(1.999, rel=1e-5)


NORMED = nnjax.serial(nnjax.dense(4, 3), nnjax.batch_norm(3))


def test_running_statistics_are_carried_beside_the_optimizers_state():
    running, optimizer = nnjax.running_statistics(NORMED), optax.sgd(0.1)
    params = NORMED.init(jax.random.key(0))
    state = init_state(params, optimizer, jax.random.key(1), running)
    step = jax.jit(make_step(nnjax.value_and_grad(NORMED, LOSS), optimizer, running))
    expected = running.init(params)
    for _ in range(3):
        expected = running.update(expected, state.params, X)  # at the parameters before the step
        state, _ = step(state, X, LABELS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.running, expected)
    assert int(state.running.count) == 3
    without, _ = make_step(nnjax.value_and_grad(NORMED, LOSS), optimizer)(
        init_state(params, optimizer, jax.random.key(1)), X, LABELS
    )
    assert without.running == ()


def test_a_batch_whose_loss_is_not_finite_is_left_out_of_the_running_statistics():
    running, optimizer = nnjax.running_statistics(NORMED), optax.apply_if_finite(optax.sgd(0.1), 3)
    state = init_state(NORMED.init(jax.random.key(0)), optimizer, jax.random.key(1), running)
    step = make_step(nnjax.value_and_grad(NORMED, LOSS), optimizer, running)
    after, value = step(state, X.at[0, 0].set(jnp.inf), LABELS)
    assert not jnp.isfinite(value)
    jax.tree.map(np.testing.assert_array_equal, after.running, state.running)


def test_anything_but_running_statistics_is_refused():
    optimizer = optax.sgd(0.1)
    for call in (
        lambda: make_step(nnjax.value_and_grad(NORMED, LOSS), optimizer, NORMED),
        lambda: init_state(NORMED.init(jax.random.key(0)), optimizer, jax.random.key(1), 0.1),
    ):
        with pytest.raises(TypeError, match=r"running must be Running.*running_statistics"):
            call()


def test_a_class_in_the_place_of_a_gradient_is_named():
    with pytest.raises(TypeError, match=r"value_and_grad must be a function, got the class float32"):
        make_step(jnp.float32, optax.sgd(0.1))


def test_numbers_in_the_optimizers_state_that_are_no_arrays_are_named():
    optimizer = optax.adam(0.1)
    state = init_state(MODEL.init(jax.random.key(0)), optimizer, jax.random.key(1))
    step = make_step(nnjax.value_and_grad(MODEL, LOSS), optimizer)
    lists = jax.tree.map(lambda a: a.tolist(), state.opt_state)
    with pytest.raises(TypeError, match=r"step: opt_state.*must be an array.*init_state"):
        step(state._replace(opt_state=lists), X, LABELS)
