import json
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from nnjax import nielsen
from nnjax.reproduce.curves import CURVES, LISTS, measures, overlay, published
from nnjax.train import DataError, Dataset, Split, init_state

SHARED = Path(__file__).parents[3] / "shared" / "data" / "nielsen_curves"
X = np.random.default_rng(0).random((30, 12)).astype(np.float32)
SPLIT = Split(X, (np.arange(30) % 10).astype(np.int32))
DATA = Dataset("mnist", SPLIT, Split(X[:10], SPLIT.y[:10]), SPLIT, 10)
FULL = CURVES[-1]


def write(folder):
    folder.mkdir()
    lists = [[float(i + k) for i in range(3)] for k in range(4)]
    for curve in CURVES:
        content = lists
        for step in reversed(curve.path):
            content = {step: lists} if isinstance(step, str) else [content] * 3
        path = folder / curve.file
        old = json.loads(path.read_text()) if path.exists() and isinstance(content, dict) else {}
        path.write_text(json.dumps({**old, **content} if isinstance(content, dict) else content))
    return folder


def test_the_published_lists_are_found_by_name(tmp_path):
    folder = write(tmp_path / "curves")
    for curve in CURVES:
        found = published(folder, curve)
        assert list(found) == list(curve.measures)
        assert all(found[n][0] == LISTS.index(n) for n in curve.measures)
    with pytest.raises(DataError, match=r"multiple_eta\.json does not exist; put the book's published curves into"):
        published(tmp_path, CURVES[4])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the book's curves are not beside this checkout")
def test_the_real_ones_have_thirty_epochs():
    for curve in CURVES:
        assert {len(v) for v in published(SHARED, curve).values()} == {30}


@pytest.mark.in_turn
def test_costs_and_counts_are_the_books():
    params = nielsen.init(jax.random.key(0), [12, 5, 10])
    state = init_state(params, optax.sgd(0.1), jax.random.key(1))
    found = measures(FULL, DATA)(state)
    a = np.asarray(jax.vmap(lambda x: nielsen.feedforward(params, x))(X))
    y = np.eye(10)[SPLIT.y]
    cost = -(y * np.log(a) + (1 - y) * np.log1p(-a)).sum(1)
    squares = sum(float((np.asarray(w) ** 2).sum()) for w in params.w)
    assert found["training_accuracy"] == pytest.approx((a.argmax(1) == SPLIT.y).sum())
    assert float(found["training_cost"]) == pytest.approx(cost.mean() + FULL.lmbda / (2 * 30) * squares, rel=1e-5)
    assert float(found["validation_cost"]) == pytest.approx(cost[:10].mean() + FULL.lmbda / (2 * 10) * squares, rel=1e-5)


@pytest.mark.in_turn
def test_ours_are_drawn_over_theirs(tmp_path):
    folder = write(tmp_path / "curves")
    overlay([(c, published(folder, c), published(folder, c)) for c in CURVES], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
