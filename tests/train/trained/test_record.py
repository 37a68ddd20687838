import json

import jax
import numpy as np
import pytest

from nnjax.data.dataset import Moments
from nnjax.layers.dense import DenseParams
from nnjax.train import CheckpointError, init_state, make_optimizer
from nnjax.train.trained import record as module
from nnjax.train.trained.network import Network
from nnjax.train.trained.record import (
    CLASSES,
    NUMBERS,
    TEXT,
    Record,
    Rows,
    Targets,
    evaluated_at,
    feedback_of,
    keep_record,
    model_of,
    read_record,
)

MLP = Network("mlp", {"sizes": [3, 4, 2], "activation": "relu"})
KNOWN = Moments(np.array([0.1, 1e6, -3.0]), np.array([1e-9, 1.0, 1 / 3]))
ROWS = Record(
    CLASSES, "mine.npz", MLP, "softmax_cross_entropy", compute_dtype="bfloat16", rows=Rows((3,), 255, KNOWN), classes=2,
    names=("no", "yes"), feedback=feedback_of("random", jax.random.key(5)),
)  # fmt: skip
NUMBER = Record(
    NUMBERS, "mine.csv", MLP, "mean_squared_error", rows=Rows((3,), features=("a", "b", "c")),
    targets=Targets((2,), Moments(np.array([0.1, 1e6]), np.array([1e-9, 1 / 3])), ("price", "größe")),
)  # fmt: skip
ONE = NUMBER._replace(targets=Targets((), Moments(np.array(0.1), np.array(1 / 3)), ("price",)))
WORDS = Record(TEXT, "a.txt", Network("gpt", {"vocab": 4}), "linear_cross_entropy", vocabulary='\n "é😀')


def test_what_is_written_is_read_again_bit_for_bit(tmp_path):
    keep_record(tmp_path, ROWS)
    found = read_record(tmp_path)
    assert found._replace(rows=None) == ROWS._replace(rows=None)
    assert found.rows[:2] == ROWS.rows[:2]
    for a, b in zip(found.rows.moments, KNOWN):
        np.testing.assert_array_equal(a, b, strict=True)
    keep_record(tmp_path, WORDS)  # a run that starts again in this folder
    assert read_record(tmp_path) == WORDS


@pytest.mark.parametrize("record", [NUMBER, ONE])
def test_the_moments_of_targets_are_read_again_bit_for_bit_apart_from_those_of_features(tmp_path, record):
    for moments in (None, KNOWN):
        written = record._replace(rows=record.rows._replace(moments=moments))
        keep_record(tmp_path, written)
        found = read_record(tmp_path)
        assert found._replace(rows=None, targets=None) == written._replace(rows=None, targets=None)
        assert found.rows._replace(moments=None) == record.rows
        assert found.targets._replace(moments=None) == record.targets._replace(moments=None)
        assert (found.rows.moments is None) == (moments is None)
        for a, b in zip(found.targets.moments, record.targets.moments):
            np.testing.assert_array_equal(a, b, strict=True)


def test_it_is_kept_where_it_is_the_same_and_written_again_where_it_is_damaged(tmp_path):
    keep_record(tmp_path, ROWS)
    before = {p.name: p.stat().st_ino for p in tmp_path.iterdir()}
    keep_record(tmp_path, ROWS)
    assert {p.name: p.stat().st_ino for p in tmp_path.iterdir()} == before
    (tmp_path / "network.npz").write_bytes(b"")
    keep_record(tmp_path, ROWS)
    assert read_record(tmp_path).classes == 2


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("network.json", lambda b: b.replace(b"relu", b"tanh"), r"is damaged: it has changed.*--resume"),
        ("network.json", lambda b: b[:50], r"network\.json is damaged"),
        ("network.json", lambda b: b"[]", r"network\.json is damaged"),
        ("network.json", lambda b: b'{"format": 1}', r"network\.json is damaged"),
        ("network.json", lambda b: b.replace(b'"format": 1', b'"format": 9'), r"another version, in format 9.*format 1"),
        ("network.npz", lambda b: b[:-30], r"network\.npz cannot be read"),
    ],
)
def test_damage_is_named(tmp_path, name, change, message):
    keep_record(tmp_path, ROWS)
    content = (tmp_path / name).read_bytes()
    assert change(content) != content
    (tmp_path / name).write_bytes(change(content))
    with pytest.raises(CheckpointError, match=message):
        read_record(tmp_path)


def test_arrays_of_another_run_are_refused(tmp_path):
    keep_record(tmp_path, ROWS)
    np.savez(tmp_path / "network.npz", mean=KNOWN.mean, deviation=KNOWN.deviation + 1)
    with pytest.raises(CheckpointError, match=r"deviation has changed"):
        read_record(tmp_path)
    (tmp_path / "network.npz").unlink()
    with pytest.raises(CheckpointError, match=r"it does not exist"):
        read_record(tmp_path)


def test_options_of_a_later_version_are_refused(tmp_path):
    keep_record(tmp_path, ROWS)
    content = json.loads((tmp_path / "network.json").read_text())
    del content["sha256"]
    content["network"]["depth"] = 3
    (tmp_path / "network.json").write_text(json.dumps({**content, "sha256": module._of_content(content)}))
    with pytest.raises(CheckpointError, match=r"another version, with other options"):
        read_record(tmp_path)


def test_a_folder_that_cannot_be_written_to_is_named_and_nothing_is_left(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.json, "dump", full)
    with pytest.raises(CheckpointError, match=r"network\.json could not be written: No space left.*another folder"):
        keep_record(tmp_path, WORDS)
    assert list(tmp_path.iterdir()) == []


def test_one_process_writes_for_all(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "by_first", lambda make, error: None)  # as in another one
    keep_record(tmp_path, WORDS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("skip", [0, 2])
def test_the_evaluated_parameters_are_the_average_where_there_is_one(skip):
    params = [DenseParams(np.ones((2, 2), np.float32), np.ones(2, np.float32))]

    def state(**options):
        return init_state(params, make_optimizer("adam", 0.1, skip=skip, **options), jax.random.key(0))

    assert evaluated_at(state()) == "params"
    averaged = state(average=0.9, clip=1.0)
    leaves = [jax.tree_util.keystr(p).lstrip(".") for p, _ in jax.tree_util.tree_leaves_with_path(averaged)]
    assert f"{evaluated_at(averaged)}[0].w" in leaves
    assert evaluated_at(averaged).endswith(".average")


@pytest.mark.in_turn
def test_the_model_has_the_feedback_that_it_was_trained_with():
    assert feedback_of("transpose", jax.random.key(0)) is None
    layer, plain = model_of(ROWS), model_of(ROWS._replace(feedback=None))
    params, x = plain.init(jax.random.key(1)), np.ones((2, 3), np.float32)
    ct = np.ones((2, 2), np.float32)
    (first, again, right), _ = zip(*(l.bwd(l.fwd(params, x)[1], ct) for l in (layer, model_of(ROWS), plain)))
    np.testing.assert_array_equal(first[0].w, again[0].w)
    assert abs(first[0].w - right[0].w).max() > 1e-3
