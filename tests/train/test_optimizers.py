import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nnjax
from nnjax.train.optimizers import OPTIMIZERS, SCHEDULES, average_parameters, averaged, make_optimizer, make_schedule

PARAMS = {"w": jnp.array([[1.0, -2.0], [3.0, 4.0]]), "b": jnp.array([1.0, -1.0])}
GRADS = {"w": jnp.array([[0.5, 1.0], [0.0, -1.0]]), "b": jnp.array([2.0, 0.0])}


def steps(optimizer, n=3, grads=GRADS):
    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
        params, state = PARAMS, optimizer.init(PARAMS)
        for _ in range(n):
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
    return params, state


def norm(tree):
    return float(jnp.sqrt(sum((jnp.vdot(x, x) for x in jax.tree.leaves(tree)), start=jnp.zeros(()))))


def close(a, b):
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-6), a, b)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.repeats
def test_every_optimizer_takes_a_step(name):
    params, _ = steps(make_optimizer(name, 0.01), 2)
    assert all(bool(jnp.isfinite(p).all()) for p in jax.tree.leaves(params))
    assert float(jnp.abs(params["w"] - PARAMS["w"]).max()) > 0


def test_arguments_reach_the_optimizer():
    close(steps(make_optimizer("adam", 0.1, arguments={"b1": 0.5}))[0], steps(optax.adam(0.1, b1=0.5))[0])
    with pytest.raises(ValueError, match=r"unknown argument of the optimizer adam 'b_1': .*did you mean 'b1'\?"):
        make_optimizer("adam", 0.1, arguments={"b_1": 0.5})


SOME = {"exponential_decay": {"decay_rate": 0.5}, "piecewise_constant_schedule": {"3": 0.1},
        "piecewise_interpolate_schedule": {"interpolate_type": "linear", "3": 0.1}, "linear_schedule": {"end_value": 0.0},
        "polynomial_schedule": {"end_value": 0.0, "power": 1.0}, "warmup_constant_schedule": {},
        "warmup_exponential_decay_schedule": {"decay_rate": 0.5}}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_has_the_learning_rate_as_its_largest(name):
    made = make_schedule(name, 0.1, 100, SOME.get(name, {}))
    with jax.numpy_dtype_promotion("standard"):
        rates = [float(made(i)) for i in range(101)]
    assert max(rates) == pytest.approx(0.1, rel=1e-5)
    assert min(rates) >= 0


def test_schedules_span_the_run_and_wrong_ones_are_refused():
    cosine = make_schedule("cosine_decay_schedule", 0.1, 50, {"alpha": 0.1})
    assert [float(cosine(i)) for i in (0, 50, 99)] == pytest.approx([0.1, 0.01, 0.01])
    steps_of = make_schedule("piecewise_constant_schedule", 1.0, 50, {"10": 0.1, "20": 0.5})
    assert [float(steps_of(i)) for i in (5, 15, 25)] == pytest.approx([1.0, 0.1, 0.05])
    with pytest.raises(ValueError, match=r"the schedule linear_schedule: .*missing.*end_value.*; pass the arguments"):
        make_schedule("linear_schedule", 0.1, 10)
    with pytest.raises(ValueError, match=r"schedule arguments alpha need a schedule"):
        make_schedule(None, 0.1, 10, {"alpha": 0.1})
    with pytest.raises(ValueError, match=r"the schedule cosine_decay_schedule takes named arguments, got 5; pass some of"):
        make_schedule("cosine_decay_schedule", 0.1, 10, {"5": 0.1})
    with pytest.raises(ValueError, match=r"did you mean 'cosine_decay_schedule'\?"):
        make_schedule("cosine_decay", 0.1, 10)
    with pytest.raises(ValueError, match="learning rate must be positive, got 0"):
        make_schedule(None, 0, 10)


def test_decoupled_decay_shrinks_only_weights_by_the_rate_of_each_step():
    half = make_optimizer("sgd", 0.5, weight_decay=0.2)
    params, _ = steps(half, 1, jax.tree.map(jnp.zeros_like, GRADS))
    close(params, {"w": PARAMS["w"] * (1 - 0.5 * 0.2), "b": PARAMS["b"]})
    zero = jax.tree.map(jnp.zeros_like, GRADS)
    scheduled = make_optimizer(
        "sgd", 0.5, 2, schedule="linear_schedule", schedule_arguments={"end_value": 0.0}, weight_decay=0.2
    )
    params, _ = steps(scheduled, 2, zero)
    close(params, {"w": PARAMS["w"] * (1 - 0.5 * 0.2) * (1 - 0.25 * 0.2), "b": PARAMS["b"]})
    mask = lambda params: jax.tree.map(lambda p: p.ndim >= 2, params)  # noqa: E731
    theirs = optax.adamw(0.1, weight_decay=0.3, mask=mask)
    close(steps(make_optimizer("adam", 0.1, weight_decay=0.3))[0], steps(theirs)[0])


def test_a_clipped_gradient_has_at_most_this_norm():
    params, _ = steps(make_optimizer("sgd", 1.0, clip=0.5), 1)
    moved = jax.tree.map(lambda a, b: a - b, PARAMS, params)
    assert norm(moved) == pytest.approx(0.5, rel=1e-5)
    close(moved, jax.tree.map(lambda g: 0.5 * g / norm(GRADS), GRADS))


def test_the_average_follows_the_parameters():
    optimizer = make_optimizer("sgd", 0.1, average=0.75)
    params, state = steps(optimizer, 3)
    expected, at = PARAMS, PARAMS
    for _ in range(3):
        at = jax.tree.map(lambda p, g: p - 0.1 * g, at, GRADS)
        expected = jax.tree.map(lambda e, p: 0.75 * e + 0.25 * p, expected, at)
    close(averaged(state, params), expected)
    close(averaged(steps(optax.sgd(0.1))[1], params), params)
    with pytest.raises(ValueError, match="update needs the parameters"):
        average_parameters(0.9).update(GRADS, average_parameters(0.9).init(PARAMS))


def test_gradients_that_are_not_finite_are_skipped_as_often_as_allowed():
    optimizer = make_optimizer("sgd", 0.1, skip=2)
    bad = jax.tree.map(lambda g: g * jnp.nan, GRADS)
    close(steps(optimizer, 2, bad)[0], PARAMS)
    assert not bool(jnp.isfinite(steps(optimizer, 4, bad)[0]["w"]).all())
    with pytest.raises(ValueError, match="skip must be at least 0"):
        make_optimizer("sgd", 0.1, skip=-1)


STACKED = {
    "dense": nnjax.scan_layers(nnjax.dense(2, 2), 2),
    "block": nnjax.scan_layers(nnjax.residual(nnjax.serial(nnjax.layer_norm(2), nnjax.dense(2, 2))), 3),
    "twice": nnjax.scan_layers(nnjax.scan_layers(nnjax.gru(2, 2), 2), 3),
    "gpt": nnjax.gpt(5, 3, 2, 1, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", STACKED)
@pytest.mark.repeats
def test_biases_and_norms_of_stacked_layers_do_not_decay(name):
    params = jax.tree.map(jnp.ones_like, STACKED[name].init(jax.random.key(0)))
    optimizer = make_optimizer("sgd", 0.1, weight_decay=0.5)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    seen = {"w": -0.05, "u": -0.05, "table": -0.05, "b": 0.0, "b_u": 0.0, "scale": 0.0, "offset": 0.0}
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        np.testing.assert_allclose(update, seen[path[-1].name], rtol=1e-6, err_msg=str(path))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_average_of_parameters_in_low_precision_moves(dtype):
    params = {"w": jnp.ones((2, 2), dtype), "b": jnp.zeros(2, dtype)}
    optimizer = average_parameters(0.999)
    state = optimizer.init(params)
    push = {"w": jnp.ones((2, 2), dtype), "b": jnp.zeros(2, dtype)}  # the parameters are 2 at each of the 100 updates
    step = jax.jit(optimizer.update)
    for _ in range(100):
        _, state = step(push, state, params)
    found = averaged(state, params)
    assert found["w"].dtype == dtype
    assert float(found["w"][0, 0]) == pytest.approx(2 - 0.999**100, rel=0.004)
    assert float(state.average["w"][0, 0]) == pytest.approx(2 - 0.999**100, rel=1e-5)
    assert not found["b"].any()
