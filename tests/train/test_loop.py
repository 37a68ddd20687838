"""Parts of the loop that the tests of `fit` do not reach: early stopping, divergence, skipped steps, many steps."""

import resource
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nnjax
from nnjax.train import Checkpoints, fit, init_state, load, make_optimizer, restore
from nnjax.train import loop as loop_module
from nnjax.train.loop import Batches, loop
from nnjax.train.step import examples, make_step

MODEL, LOSS = nnjax.mlp([64, 16, 10], nnjax.tanh()), nnjax.softmax_cross_entropy()
HAND = nnjax.value_and_grad(MODEL, LOSS)


def run(value_and_grad=HAND, **changes):
    options = {"predict": MODEL.apply, "optimizer": optax.adam(0.003), "epochs": 3, "batch_size": 32, "key": jax.random.key(1)}
    return fit(value_and_grad, MODEL.init(jax.random.key(0)), load("digits"), **{**options, **changes})


@pytest.mark.slow
@pytest.mark.in_turn
def test_patience_stops_where_nothing_gets_better_and_a_resumed_run_stops_there_too(tmp_path):
    done = run(optimizer=optax.sgd(1e-9), epochs=20, patience=3, checkpoints=Checkpoints(tmp_path, keep=1))
    assert done.stopped == "patience"
    assert len(done.history) == 4
    again = run(optimizer=optax.sgd(1e-9), epochs=20, patience=3, checkpoints=Checkpoints(tmp_path, keep=1, resume=True))
    assert again.stopped == "patience"
    assert again.history == done.history
    assert run(epochs=4, patience=4).stopped == ""


@pytest.mark.in_turn
def test_what_is_measured_and_what_is_scored_is_up_to_the_caller():
    done = run(
        measure=lambda state: {"step": state.step},
        evaluated=lambda state: jax.tree.map(jnp.zeros_like, state.params),
    )
    assert [record.measured for record in done.history] == [{"step": 39.0}, {"step": 78.0}, {"step": 117.0}]
    zeros = float(np.mean(load("digits").test.y == 0))
    assert all(record.test_accuracy == pytest.approx(zeros) for record in done.history)


def sometimes_infinite(every):
    def f(params, x, labels, *, weights=None, key=None):
        value, grads = HAND(params, x, labels, weights=weights, key=key)
        bad = jax.random.bernoulli(key, 1 / every)
        return jnp.where(bad, jnp.nan, value), jax.tree.map(lambda g: jnp.where(bad, jnp.inf, g), grads)

    return f


@pytest.mark.slow
@pytest.mark.in_turn
def test_steps_that_are_not_finite_are_skipped_or_end_the_run():
    done = run(sometimes_infinite(10), optimizer=make_optimizer("adam", 0.003, skip=20), skipping=True)
    assert all(np.isfinite(p).all() for p in jax.tree.leaves(done.state.params))
    assert done.history[-1].loss < done.history[0].loss
    with pytest.raises(FloatingPointError, match=r"the loss of epoch 1 is nan, so training has diverged.*; lower the"):
        run(sometimes_infinite(10))
    with pytest.raises(FloatingPointError, match=r"diverged"):  # more in a row than may be skipped
        run(sometimes_infinite(1), optimizer=make_optimizer("adam", 0.003, skip=3), skipping=True)


@pytest.mark.in_turn
def test_a_loss_that_grows_without_end_is_divergence_and_keeps_the_valid_checkpoint(tmp_path):
    schedule = optax.piecewise_constant_schedule(0.003, {50: 1e9})
    optimizer = optax.adam(schedule)
    with pytest.raises(FloatingPointError, match=r"the loss has grown from [12]\.\d+ to .*e\+\d+ in epoch \d, so training"):
        run(optimizer=optimizer, checkpoints=Checkpoints(tmp_path, every=13))
    like = init_state(MODEL.init(jax.random.key(0)), optimizer, jax.random.key(1))
    assert restore(tmp_path, like).step <= 52


@pytest.mark.in_turn
def test_memory_and_time_of_a_step_do_not_grow_over_ten_thousand_steps():
    """Peak memory after 2,000 steps and after 12,000; the slower half of the epochs may not be the later one."""
    peaks, times = [], []

    def seen(record):
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        times.append((time.perf_counter(), record.seconds))

    done = run(epochs=12_000 // 39, on_epoch=seen)
    assert int(done.state.step) > 11_900
    scale = 1 if sys.platform == "darwin" else 1024
    assert (peaks[-1] - peaks[2_000 // 39]) * scale < 8 << 20
    half = len(times) // 2
    first, second = (statistics.median(s for _, s in part) for part in (times[:half], times[half:]))
    assert second < 2 * first


def test_batches_may_be_anything_that_rows_name():
    x = jnp.arange(12.0).reshape(6, 2)
    model, loss = nnjax.dense(2, 1), nnjax.mean_squared_error()
    step = make_step(nnjax.value_and_grad(model, loss), optax.sgd(0.001))
    state = init_state(model.init(jax.random.key(0)), optax.sgd(0.001), jax.random.key(0))
    rows = []

    def order(key, first):
        rows.append(first)
        return jnp.arange(6, dtype=jnp.int32).reshape(3, 2)

    batches = Batches((x, x.sum(1, keepdims=True)), examples, order, 3)
    done = loop(step, state, batches, 2, lambda state: (float(state.step), 0.0, {}))
    assert [record.validation_accuracy for record in done.history] == [3.0, 6.0]
    assert done.history[1].loss < done.history[0].loss


@pytest.mark.in_turn
def test_a_finished_scan_is_reported_without_moving_the_ends_of_scans(monkeypatch):
    monkeypatch.setattr(loop_module, "FLOPS", 1e6)  # several scans in an epoch
    told = []
    plain, watched = run(epochs=2), run(epochs=2, on_steps=lambda step, loss: told.append((step, loss)))
    for a, b in zip(jax.tree.leaves(plain.state.params), jax.tree.leaves(watched.state.params)):
        np.testing.assert_array_equal(a, b)
    steps = [step for step, _ in told]
    assert steps[0] == 0
    assert np.isnan(told[0][1])
    assert {39, 78} < set(steps)
    assert len(steps) > 5
    assert steps == sorted(set(steps))
    assert all(0 < loss < 10 for _, loss in told[1:])


def test_a_step_is_traced_once_for_all_its_uses():
    traced = []

    def counted(*args, **kwargs):
        traced.append(1)
        return HAND(*args, **kwargs)

    run(counted, epochs=1)
    assert len(traced) == 1


@pytest.mark.in_turn
def test_a_resumed_run_reports_where_it_starts(tmp_path):
    run(epochs=1, checkpoints=Checkpoints(tmp_path))
    told = []
    run(epochs=2, checkpoints=Checkpoints(tmp_path, resume=True), on_steps=lambda step, loss: told.append(step))
    assert told[0] == 39
    assert told[-1] == 78
