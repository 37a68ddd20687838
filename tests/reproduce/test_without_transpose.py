import json
import math

import pytest

from nnjax.feedback import inverse, transpose
from nnjax.reproduce.without_transpose import DIGITS, MNIST, Outcome, compare, diverged, line, operators_of, train_with
from nnjax.train import load

DATA = load("digits")
SHORT = DIGITS._replace(epochs=2, operators=("transpose", "random"))


def test_the_inverse_stands_where_weights_are_square():
    assert operators_of(DIGITS, "inverse", DATA) == (inverse, transpose)
    assert operators_of(DIGITS, "random", DATA) == "random"


@pytest.mark.slow
@pytest.mark.in_turn
def test_finished_runs_are_not_trained_again_and_further_seeds_are(tmp_path):
    file = tmp_path / "feedback.json"
    said: list[str] = []
    rows = compare(SHORT, DATA, 1, file, said.append)
    assert [row["operator"] for row in rows] == ["transpose", "random"]
    assert all(set(v) == {0} for v in rows[0]["seeds"][0]["angles"].values())  # exactly
    assert min(rows[1]["seeds"][0]["angles"]["[0].w"]) > 10
    assert len(rows[1]["seeds"][0]["ratios"]["[2].w"]) == 2
    again: list[str] = []
    assert compare(SHORT, DATA, 1, file, again.append) == rows
    assert len(again) == 2
    more = compare(SHORT, DATA, 2, file, again.append)
    assert [r["seeds"][0] for r in more] == [r["seeds"][0] for r in rows]
    assert [s["seed"] for s in more[0]["seeds"]] == [0, 1]
    written = json.loads(file.read_text())
    assert {"jax", "device", "date"} <= set(written)
    compare(SHORT._replace(epochs=1), DATA, 1, file, again.append)  # other settings: another table
    assert len(json.loads(file.read_text())["settings"][0]["rows"][0]["seeds"][0]["angles"]["[0].w"]) == 1


@pytest.mark.in_turn
def test_a_run_that_diverges_is_reported_and_has_no_accuracy():
    said: list[str] = []
    found = diverged(SHORT._replace(learning_rate=1e9, activation="relu"), "transpose", 0, DATA, said.append)
    assert math.isnan(found.accuracy)
    assert "diverged" in said[0]
    assert line(SHORT, {"operator": "transpose", "seeds": [{"accuracy": None}]}).endswith("diverged")


def test_a_line_has_each_seed_the_angles_below_the_top_and_what_was_published():
    outcome = Outcome(0, 0.98, {"a": [3.0, 1.0], "b": [0.0, 0.0]}, {}, 1.0)
    assert outcome.final == {"a": 1.0}
    words = line(MNIST, {"operator": "random", "seeds": [outcome._asdict(), outcome._replace(accuracy=0.97)._asdict()]})
    assert "97.50 %  (98.00, 97.00)  angles 1.0  published 98.30 %" in words


@pytest.mark.slow
@pytest.mark.in_turn
def test_on_digits_random_feedback_aligns_and_learns():
    found = train_with(DIGITS, "random", 0, DATA, lambda _: None)
    assert max(found.final.values()) < 60
    assert found.accuracy > 0.97
    assert max(train_with(DIGITS, "transpose", 0, DATA, lambda _: None).final.values()) == 0
