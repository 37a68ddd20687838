import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax

RNG = np.random.default_rng(0)
BATCHES = [jnp.asarray(RNG.standard_normal((6, 5, 4)) * 2 + 1, jnp.float32) for _ in range(3)]
BLOCK = nnjax.serial(nnjax.dense(4, 4), nnjax.batch_norm(4), nnjax.tanh())
MODEL = nnjax.serial(
    nnjax.batch_norm(4),
    nnjax.residual(BLOCK),
    nnjax.residual(nnjax.dense(4, 3), nnjax.serial(nnjax.dense(4, 3), nnjax.batch_norm(3))),
)


def test_the_statistics_are_the_mean_and_the_unbiased_variance_of_each_input():
    params = MODEL.init(jax.random.key(0))
    found = jax.jit(lambda p, x: nnjax.batch_norm_statistics(MODEL, p, x))(params, BATCHES[0])
    x = np.asarray(BATCHES[0], np.float64).reshape(-1, 4)
    np.testing.assert_allclose(found[0].mean, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found[0].var, x.var(0, ddof=1), rtol=1e-5)
    first = MODEL.parts[0].apply(params[0], BATCHES[0])
    h = np.asarray(first @ params[1][0].w, np.float64).reshape(-1, 4)  # the bias is 0
    np.testing.assert_allclose(found[1][1].var, h.var(0, ddof=1), rtol=1e-4)
    assert found[1][0].w is None
    assert found[2][1][1].mean.shape == (3,)
    assert len(jax.tree.leaves(found)) == 6


def test_the_statistics_are_those_of_training_even_at_frozen_parameters():
    params = MODEL.init(jax.random.key(0))
    frozen = nnjax.calibrate(MODEL, params, [BATCHES[1]])
    for a, b in zip(
        *(jax.tree.leaves(nnjax.batch_norm_statistics(MODEL, p, BATCHES[0])) for p in (params, frozen)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_stacked_layers_have_stacked_statistics():
    model = nnjax.scan_layers(nnjax.residual(BLOCK), 3)
    params = model.init(jax.random.key(0))
    running = nnjax.running_statistics(model)
    state = running.update(running.init(params), params, BATCHES[0])
    assert state.statistics[1].mean.shape == (3, 4)
    parts = nnjax.serial(*[nnjax.residual(BLOCK)] * 3)
    each = tuple(jax.tree.map(lambda p, i=i: p[i], params) for i in range(3))
    apart = nnjax.batch_norm_statistics(parts, each, BATCHES[0])
    whole = nnjax.batch_norm_statistics(model, params, BATCHES[0])
    for i in range(3):
        np.testing.assert_allclose(whole[1].mean[i], apart[i][1].mean, atol=1e-6)
        np.testing.assert_allclose(whole[1].var[i], apart[i][1].var, rtol=1e-5)
    assert running.frozen(params, state)[1].var.shape == (3, 4)


@pytest.mark.parametrize("momentum", [0.1, 0.0, 1, None])
def test_they_are_averaged_as_the_momentum_says(momentum):
    layer = nnjax.batch_norm(4)
    params, running = layer.init(jax.random.key(0)), nnjax.running_statistics(layer, momentum=momentum)
    state, mean, var = running.init(params), np.zeros(4), np.ones(4)
    for n, x in enumerate(BATCHES, 1):
        state = jax.jit(running.update)(state, params, x)
        m = 1 / n if momentum is None else momentum
        x = np.asarray(x, np.float64).reshape(-1, 4)
        mean, var = (1 - m) * mean + m * x.mean(0), (1 - m) * var + m * x.var(0, ddof=1)
    assert int(state.count) == 3
    np.testing.assert_allclose(state.statistics.mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.statistics.var, var, rtol=1e-5)
    frozen = running.frozen(params, state)
    assert params.mean is None
    np.testing.assert_array_equal(frozen.mean, state.statistics.mean)
    np.testing.assert_array_equal(frozen.scale, params.scale)


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.in_turn
def test_pytorch_has_the_same_running_statistics_and_the_same_evaluation(momentum, x64):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.BatchNorm2d(4, momentum=momentum, dtype=torch.float64)
    layer = nnjax.batch_norm(4)
    params = jax.tree.map(lambda p: p.astype(float), layer.init(jax.random.key(0)))
    running = nnjax.running_statistics(layer, momentum=momentum)
    state = running.init(params)
    for _ in range(4):
        x = RNG.standard_normal((3, 5, 2, 4)) * 3 - 1
        state = running.update(state, params, jnp.asarray(x))
        y = theirs(torch.from_numpy(np.moveaxis(x, -1, 1)))
        np.testing.assert_allclose(np.moveaxis(layer.apply(params, jnp.asarray(x)), -1, 1), y.detach(), atol=1e-10)
    np.testing.assert_allclose(state.statistics.mean, theirs.running_mean, atol=1e-10)
    np.testing.assert_allclose(state.statistics.var, theirs.running_var, atol=1e-10)
    assert int(state.count) == int(theirs.num_batches_tracked)
    theirs.eval()
    x = RNG.standard_normal((1, 5, 2, 4))
    y = layer.apply(running.frozen(params, state), jnp.asarray(x))
    np.testing.assert_allclose(np.moveaxis(y, -1, 1), theirs(torch.from_numpy(np.moveaxis(x, -1, 1))).detach(), atol=1e-10)


def test_in_one_program_with_the_gradient_the_forward_pass_runs_once():
    model = nnjax.serial(nnjax.conv(1, 2, (3, 3)), nnjax.batch_norm(2), nnjax.flatten(3), nnjax.dense(32, 3))
    f, running = nnjax.value_and_grad(model, nnjax.softmax_cross_entropy()), nnjax.running_statistics(model)
    params = model.init(jax.random.key(0))
    x, labels = jnp.ones((5, 4, 4, 1)), jnp.zeros(5, jnp.int32)

    def both(params, state, x):
        return f(params, x, labels), running.update(state, params, x)

    def alone(params, state, x):
        return f(params, x, labels), state

    flops = [jax.jit(step).lower(params, running.init(params), x).compile().cost_analysis()["flops"] for step in (alone, both)]
    assert flops[0] <= flops[1] < 1.2 * flops[0]


def test_low_precision_is_averaged_in_the_dtype_of_the_parameters():
    layer = nnjax.batch_norm(4)
    params, running = layer.init(jax.random.key(0)), nnjax.running_statistics(layer)
    low = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    state = running.update(running.init(params), low, BATCHES[0].astype(jnp.bfloat16))
    assert state.statistics.var.dtype == jnp.float32
    with pytest.raises(TypeError, match="batch_norm"):
        running.update(state, params, jnp.ones((3, 4), jnp.int32))


def test_a_model_without_batch_norm_has_none():
    model = nnjax.mlp([4, 3])
    params = model.init(jax.random.key(0))
    running = nnjax.running_statistics(model)
    state = running.update(running.init(params), params, jnp.ones((2, 4)))
    assert jax.tree.leaves(state.statistics) == []
    assert jax.tree.structure(running.frozen(params, state)) == jax.tree.structure(params)


@pytest.mark.in_turn
def test_one_example_and_none():
    layer = nnjax.batch_norm(4)
    params = layer.init(jax.random.key(0))
    found = nnjax.batch_norm_statistics(layer, params, jnp.ones((1, 4)))
    np.testing.assert_array_equal(found.var, np.zeros(4))
    with pytest.raises(ValueError, match="batch_norm_statistics: the batch must hold entries"):
        nnjax.batch_norm_statistics(layer, params, jnp.ones((0, 4)))


@pytest.mark.parametrize("momentum", [-0.1, 1.5, "0.1", True, float("nan")])
def test_other_momenta_are_refused(momentum):
    with pytest.raises(ValueError, match=r"running_statistics: momentum must lie in 0 \.\.\. 1"):
        nnjax.running_statistics(MODEL, momentum=momentum)


def test_what_does_not_say_what_its_parts_meet_is_refused():
    odd = nnjax.serial(nnjax.batch_norm(4))._replace(name="odd", walk=None)
    with pytest.raises(ValueError, match="odd"):
        nnjax.batch_norm_statistics(odd, odd.init(jax.random.key(0)), BATCHES[0])
    with pytest.raises(TypeError, match="running_statistics: expected a Layer"):
        nnjax.running_statistics(nnjax.batch_norm)


def test_a_state_of_something_else_is_refused():
    params, running = MODEL.init(jax.random.key(0)), nnjax.running_statistics(MODEL)
    state = running.init(params)
    for call in (lambda s: running.update(s, params, BATCHES[0]), lambda s: running.frozen(params, s)):
        with pytest.raises(TypeError, match="running_statistics: state must be a RunningState"):
            call(params)
        with pytest.raises(ValueError, match=r"running_statistics: state .*init\(params\)"):
            call(state._replace(statistics=state.statistics[:2]))
        with pytest.raises(TypeError, match="running_statistics: count"):
            call(state._replace(count=3))
