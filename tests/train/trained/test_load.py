import jax
import numpy as np
import pytest

from nnjax.data.dataset import Moments
from nnjax.layer import Layer
from nnjax.train import CheckpointError, load_run
from nnjax.train.trained.network import Network, layer_of
from nnjax.train.trained.record import CLASSES, NUMBERS, TEXT, Record, Rows, Targets

NETWORK = Network("mlp", {"sizes": [3, 2], "activation": "relu"})
MODEL = layer_of(NETWORK)
PARAMS = MODEL.init(jax.random.key(0))
KNOWN = Moments(np.array([0.0, 1e4, -1.0]), np.array([1e-3, 1e3, 1.0]))
RECORD = Record(CLASSES, "mine.npz", NETWORK, "softmax_cross_entropy", rows=Rows((3,), 1, KNOWN), classes=2)
WORDS = Network("char_rnn", {"vocab": 4, "width": 4, "cell": "lstm", "layers": 1})
TEXTS = Record(TEXT, "a.txt", WORDS, "softmax_cross_entropy", vocabulary="\nabc")


def test_a_run_predicts_raw_rows(tmp_path, save_run):
    run = load_run(save_run(tmp_path / "run", RECORD, PARAMS, (1, 2), (0.9, 0.5)))
    assert isinstance(run.model, Layer)
    assert (run.step, run.folder, run.skipped) == (2, tmp_path / "run", ())
    assert run.history[-1].test_accuracy == 0.5
    x = np.random.default_rng(0).normal(size=(5, 3)) * KNOWN.deviation + KNOWN.mean
    scaled = ((x - KNOWN.mean) / KNOWN.deviation).astype(np.float32)
    np.testing.assert_allclose(run.predict(x).outputs, run.model.apply(run.params, scaled), rtol=1e-4, atol=1e-4)
    best = load_run(str(tmp_path), best=True)  # one level up
    assert best.step == 1
    assert load_run(tmp_path / "run" / "checkpoints" / "00000001").step == 1
    with pytest.raises(ValueError, match=r"sample: .*holds a network of another kind, mlp on mine\.npz; use predict"):
        run.sample("a")


@pytest.mark.in_turn
def test_a_run_of_text_writes(tmp_path, save_run):
    run = load_run(save_run(tmp_path, TEXTS, layer_of(WORDS).init(jax.random.key(0))))
    found = run.sample("ab", 8)
    assert len(found) == 8
    assert set(found) <= set("\nabc")
    assert run.sample("ab", 8, seed=0) == found == "".join(run.stream("ab", 8, key=jax.random.key(0)))
    assert run.sample("ab", 30, seed=1, temperature=2.0) != run.sample("ab", 30, seed=2, temperature=2.0)
    assert next(run.stream("ab")) == found[0]
    with pytest.raises(ValueError, match=r"a key or a seed, not both"):
        run.sample("ab", key=jax.random.key(0), seed=0)
    with pytest.raises(ValueError, match=r"seed must be a whole number"):
        run.sample("ab", seed=-1)
    with pytest.raises(TypeError, match=r"key must be a key"):
        run.stream("ab", key=3)
    with pytest.raises(ValueError, match=r"predict: .*char_rnn on a\.txt; use sample"):
        run.predict(np.zeros((1, 3)))


def test_anything_but_a_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"is not a run, but empty"):
        load_run(tmp_path)
    with pytest.raises(TypeError, match=r"best must be True or False"):
        load_run(tmp_path, best="yes")


def test_a_run_of_numbers_predicts_them(tmp_path, save_run):
    targets = Targets((2,), Moments(np.array([5e5, 1.0]), np.array([1e3, 1e-3])), ("price", "size"))
    record = RECORD._replace(task=NUMBERS, loss="mean_squared_error", classes=0, targets=targets)
    run = load_run(save_run(tmp_path / "run", record, PARAMS))
    found = run.predict(KNOWN.mean + KNOWN.deviation)
    np.testing.assert_allclose(found.numbers, [5e5, 1.0] + found.outputs * [1e3, 1e-3], rtol=1e-6)
    with pytest.raises(ValueError, match=r"sample: .*use predict"):
        run.sample("a")
