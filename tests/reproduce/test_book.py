import contextlib
import json

import jax
import numpy as np
import pytest

from nnjax.reproduce import book as reproduce
from nnjax.reproduce.curves import CURVES
from nnjax.reproduce.rows import ROWS, Row
from nnjax.train import Dataset, Split, run

RNG = np.random.default_rng(0)
CENTRES = RNG.random((10, 784)).astype(np.float32)


def split(n):
    y = (np.arange(n) % 10).astype(np.int32)
    return Split((0.7 * CENTRES[y] + 0.3 * RNG.random((n, 784))).astype(np.float32), y)


DATA = Dataset("mnist", split(200), split(50), split(60), 10)
SMALL = Row("small", 97.0, "test", (12,), 3.0, 3)
MLP = Row("mlp", 97.0, "test", (12,), 0.1, 3, model="mlp", activation="sigmoid")


def quiet(line):
    pass


def test_the_epoch_that_counts_is_the_books_for_each_kind_of_row():
    epochs = [[0.5, 0.9], [0.8, 0.6], [0.8, 0.7], [0.7, 0.8]]
    assert reproduce.reported(SMALL, epochs) == 0  # chapter 1: the best on the test images
    assert reproduce.reported(SMALL._replace(of="validation"), epochs) == 1
    assert reproduce.reported(MLP, epochs) == 2  # chapter 6: the last of those best on the validation images


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_row_is_trained_once_and_resumed_where_it_was_stopped(tmp_path, monkeypatch):
    lines = []
    whole, _ = reproduce.run_row(SMALL, 1, DATA, tmp_path / "whole", lines.append)
    assert [line.split("epoch ")[1][:3] for line in lines] == ["1/3", "2/3", "3/3"]
    asked = []

    @contextlib.contextmanager
    def stoppable():
        yield lambda: "SIGTERM" if asked.append(1) or len(asked) >= 2 else ""

    monkeypatch.setattr(run, "stoppable", stoppable)
    with pytest.raises(reproduce.Stopped, match="SIGTERM"):
        reproduce.run_row(SMALL, 1, DATA, tmp_path / "cut", quiet)
    monkeypatch.undo()
    lines.clear()
    rest, here = reproduce.run_row(SMALL, 1, DATA, tmp_path / "cut", lines.append)
    assert lines.pop(0).startswith("resuming from step ")
    assert [line.split("epoch ")[1][:3] for line in lines] == ["3/3"]
    assert rest._replace(seconds=0) == whole._replace(seconds=0)
    lines.clear()
    assert reproduce.run_row(SMALL, 1, DATA, tmp_path / "cut", lines.append)[0] == rest
    assert lines == []
    with pytest.raises(ValueError, match="run with other settings; choose another folder"):
        reproduce.run_row(SMALL._replace(learning_rate=1.0), 1, DATA, tmp_path / "cut", quiet)


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_table_has_every_seed_and_keeps_what_was_there(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "ROWS", (SMALL, MLP))
    results = tmp_path / "results"
    lines = []
    options = {"folder": tmp_path / "runs", "results": results, "curves": None, "say": lines.append}
    reproduce.reproduce(DATA, [SMALL], seeds=2, **options)
    reproduce.reproduce(DATA, [MLP], seeds=1, **options)
    rows = json.loads((results / "nielsen.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["small", "mlp"]
    assert [s["seed"] for s in rows[0]["seeds"]] == [0, 1]
    assert rows[0]["ours"] == pytest.approx(max(s["accuracy"] for s in rows[0]["seeds"]))
    assert rows[0]["settings"]["learning_rate"] == 3.0
    assert rows[0]["jax"] == jax.__version__
    assert (results / "nielsen_rows.png").read_bytes().startswith(b"\x89PNG")
    assert any(line.startswith("small: the book 97.00 %, ours ") for line in lines)


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_vote_is_of_networks_of_one_row(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "ROWS", (MLP, MLP._replace(name="vote", members=3)))
    found = reproduce.vote(MLP._replace(name="vote", book=99.0, members=3), DATA, tmp_path, quiet)
    single = [reproduce.run_row(MLP, seed, DATA, tmp_path, quiet)[0] for seed in range(3)]
    assert found.accuracy >= min(r.last_test for r in single)
    assert found.seconds == pytest.approx(sum(r.seconds for r in single))


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_curve_has_thirty_epochs_of_each_measure(tmp_path):
    found = reproduce.run_curve(CURVES[-1], DATA, tmp_path, quiet)
    assert {name: len(v) for name, v in found.items()} == dict.fromkeys(CURVES[-1].measures, 30)
    assert reproduce.run_curve(CURVES[-1], None, tmp_path, quiet) == found  # read, not trained


def test_rows_are_chosen_by_option():
    assert [r.name for r in reproduce.chosen(True, False, None)] == [r.name for r in ROWS[:5]]
    assert [r.name for r in reproduce.chosen(False, False, None)] == [r.name for r in ROWS[:8]]
    assert reproduce.chosen(False, True, None) == list(ROWS)
    assert [r.name for r in reproduce.chosen(False, False, "dropout")] == [r.name for r in ROWS[-2:]]
    with pytest.raises(ValueError, match=r"no row has 'nothing' in its name; .*\[784, 30, 10\], quadratic;"):
        reproduce.chosen(False, False, "nothing")
