"""Errors in the surroundings of a run, from the command line: one sentence, exit code 2, and earlier checkpoints stay whole."""

import subprocess
import sys

import numpy as np
import pytest

from nnjax.cli import main
from nnjax.train import checkpoint_folder
from nnjax.train.checkpoint_folder import steps, verify
from nnjax.train.run import alone

QUICK = ("train", "--hidden", "8", "--epochs")


@pytest.fixture
def refused(capsys):
    def run(*args):
        with pytest.raises(SystemExit) as caught:
            main(args)
        err = capsys.readouterr().err
        assert caught.value.code == 2, err
        assert err.startswith("nnjax: error: ")
        assert len(err.splitlines()) == 1
        return err

    return run


@pytest.fixture
def trained(tmp_path, capsys):
    """A folder with the checkpoints of two epochs."""
    with pytest.raises(SystemExit) as caught:
        main([*QUICK, "2", "--folder", str(tmp_path / "run")])
    assert caught.value.code == 0
    return tmp_path / "run"


def sound(folder, expected=(39, 78)):
    assert steps(folder / "checkpoints") == list(expected)
    for step in expected:
        verify(folder / "checkpoints" / f"{step:08d}")


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.slow
@pytest.mark.in_turn
def test_a_learning_rate_of_a_million(refused, tmp_path, optimizer):
    args = ("--folder", str(tmp_path), "--learning-rate", "1e6", "--optimizer", optimizer)
    assert "training has diverged" in refused(*QUICK, "30", *args)
    assert steps(tmp_path / "checkpoints") == []


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.arange(60) % 10 - 1}, "labels must number the classes from 0, got -1 in row 0 of y"),
        ({"y": np.full(60, 0.5)}, "target 0 is 0.5 in every example"),
        ({"y": np.arange(60) % 10 == 0}, "y must be integers from 0, which are classes, or floats"),
        ({"y": np.arange(59)}, "expected one label for each example"),
        ({"x": np.zeros((0, 4)), "y": np.zeros(0, int)}, "the training split is empty"),
    ],
)
def test_labels_out_of_range_and_an_empty_split(refused, tmp_path, arrays, message):
    np.savez(tmp_path / "mine.npz", **{"x": np.ones((60, 4)), **arrays})
    assert message in refused(*QUICK, "2", "--data", str(tmp_path / "mine.npz"))


def test_a_test_split_that_is_empty(refused, tmp_path):
    x, y = np.ones((60, 4)), np.arange(60) % 3
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x[:0], y_test=y[:0])
    assert "the test split is empty" in refused(*QUICK, "2", "--data", str(tmp_path / "mine.npz"))


def test_a_place_that_cannot_be_written_to(refused, tmp_path):
    (tmp_path / "file").write_text("x")
    assert "must be a folder" in refused(*QUICK, "2", "--folder", str(tmp_path / "file"))
    if sys.platform == "linux":
        assert "cannot be written to" in refused(*QUICK, "2", "--folder", "/proc/nnjax")  # read-only even for root


@pytest.mark.in_turn
def test_two_runs_in_one_folder(refused, trained):
    with alone(trained / "checkpoints"):
        assert "is in use by another run" in refused(*QUICK, "3", "--folder", str(trained), "--resume")
    sound(trained)


@pytest.mark.in_turn
def test_a_checkpoint_of_another_version_is_skipped_and_stays(trained, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint_folder, "FORMAT", 99)
    with pytest.raises(SystemExit) as caught:
        main([*QUICK, "1", "--folder", str(trained), "--resume"])
    out = capsys.readouterr().out
    assert caught.value.code == 0
    assert "was saved by another version, in format 1" in out
    assert "starting from the beginning" in out
    monkeypatch.undo()
    for name in ("00000039.no-checkpoint", "00000078"):
        checkpoint_folder.verify(trained / "checkpoints" / name)


@pytest.mark.in_turn
def test_a_checkpoint_of_another_model(refused, trained):
    assert "hidden was [8], is [9]" in refused("train", "--hidden", "9", "--folder", str(trained), "--resume")
    sound(trained)


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_full_disk(trained):
    """A full disk, as a process sees it: no file may grow past 2 kB, the size of the checkpoints of the first two epochs."""
    program = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
from nnjax.cli import main
main([*{QUICK!r}, "4", "--folder", {str(trained)!r}, "--resume"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "could not be saved" in done.stderr
    assert "the one of step 78 is whole" in done.stderr
    sound(trained)
