import pytest

from nnjax.train import CheckpointError, Epoch
from nnjax.train.run import Checkpoints, alone, begin, held


def test_the_score_is_validation_accuracy_where_there_is_one():
    assert Epoch(1, 0.5, 0.7, 0.6, 1.0).score == 0.7
    assert Epoch(1, 0.5, float("nan"), 0.6, 1.0).score == 0.6


def test_the_score_of_numbers_is_r2():
    nan = float("nan")
    assert Epoch(1, 0.5, nan, nan, 1.0, {"validation_r2": 0.7, "test_r2": 0.6}).score == 0.7
    assert Epoch(1, 0.5, nan, nan, 1.0, {"validation_r2": nan, "test_r2": 0.6}).score == 0.6
    assert Epoch(1, 0.5, nan, nan, 1.0).score != Epoch(1, 0.5, nan, nan, 1.0).score


def test_a_folder_is_held_by_one_run_and_freed_at_its_end(tmp_path):
    with alone(tmp_path / "run"), pytest.raises(CheckpointError, match="in use by another run"), alone(tmp_path / "run"):
        pass
    with held(Checkpoints(tmp_path / "run")) as stopped:
        assert stopped() == ""
    with held(None) as stopped:
        assert stopped() == ""


def test_a_run_that_was_never_saved_starts_from_the_beginning(tmp_path):
    for checkpoints in (None, Checkpoints(tmp_path), Checkpoints(tmp_path / "none", resume=True)):
        state, done = begin(checkpoints, "state")
        assert (state, done.history, done.first) == ("state", (), None)
