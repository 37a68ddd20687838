import jax
import numpy as np
import optax
import pytest

import nnjax
from nnjax.train import Checkpoints, Split, fit, load, one_hot
from nnjax.train.stream import streamed

MODEL, LOSS = nnjax.mlp([64, 16, 10], nnjax.tanh()), nnjax.softmax_cross_entropy()
DIGITS = load("digits")


def run(data=DIGITS, loss=LOSS, **changes):
    options = {"predict": MODEL.apply, "optimizer": optax.adam(0.003), "epochs": 2, "batch_size": 32, "key": jax.random.key(1)}
    return fit(nnjax.value_and_grad(MODEL, loss), MODEL.init(jax.random.key(0)), data, **{**options, **changes})


def alike(a, b):
    """The same batches in two programs: equal except for rounding."""
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-3, atol=1e-5), a.state.params, b.state.params)
    np.testing.assert_allclose([r.loss for r in a.history], [r.loss for r in b.history], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.in_turn
def test_streamed_from_a_file_it_is_the_same_run(tmp_path):
    for name in ("x", "y"):
        np.save(tmp_path / f"{name}.npy", getattr(DIGITS.train, name))
    x, y = (np.load(tmp_path / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in "xy")
    mapped = DIGITS._replace(train=Split(x, y))
    alike(run(mapped, streaming=True), run())
    loss = nnjax.mean_squared_error()
    alike(run(mapped, loss, streaming=True, encode=one_hot(10)), run(loss=loss, encode=one_hot(10)))


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_streamed_run_that_was_stopped_resumes_identically(tmp_path):
    run(streaming=True, epochs=1, checkpoints=Checkpoints(tmp_path, every=10))
    resumed = run(streaming=True, checkpoints=Checkpoints(tmp_path, every=10, resume=True))
    whole = run(streaming=True, checkpoints=Checkpoints(tmp_path / "whole", every=10))
    jax.tree.map(np.testing.assert_array_equal, resumed.state.params, whole.state.params)


def test_the_examples_are_shuffled_in_the_same_way_each_time():
    y = np.arange(103, dtype=np.int32)
    x = y[:, None].astype(np.float32)
    batches = streamed(x, y, 5)
    rows = np.asarray(batches.order(jax.random.key(0), 0))
    assert rows.shape == (batches.per_epoch, 5) == (20, 5)
    fed_x, fed_y = batches.feed(rows)
    np.testing.assert_array_equal(fed_y, rows)
    np.testing.assert_array_equal(fed_x[..., 0], rows)
    np.testing.assert_array_equal(rows, streamed(x, y, 5).order(jax.random.key(0), 0))
    assert rows.ravel().tolist() != sorted(rows.ravel().tolist())
    assert len(set(rows.ravel().tolist())) == 100
