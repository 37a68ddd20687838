import os

import pytest

from nnjax.train import CheckpointError
from nnjax.train.trained.place import found_place


def made(folder):
    (folder / "checkpoints" / "00000120" / "state").mkdir(parents=True)
    (folder / "network.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("")
    return folder


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ("", None), ("checkpoints", None), ("checkpoints/00000120", 120), ("checkpoints/00000120/state", 120),
        ("network.json", None), ("metrics.jsonl", None), ("..", None),
    ],
)  # fmt: skip
def test_a_path_in_or_just_above_a_run_stands_for_it(tmp_path, path, step):
    run = made(tmp_path / "runs" / "one")
    found = found_place("load_run", run / path)
    assert os.path.samefile(found.folder, run)
    assert found.step == step
    assert os.path.samefile(found_place("load_run", str(run / path)).folder, run)


def test_a_relative_path_from_inside_a_run(tmp_path, monkeypatch):
    run = made(tmp_path / "run")
    monkeypatch.chdir(run / "checkpoints" / "00000120")
    assert found_place("load_run", ".") == (run, 120)


def test_several_runs_are_listed(tmp_path):
    for i in range(10):
        made(tmp_path / f"run{i}")
    with pytest.raises(CheckpointError, match=r"several runs: .*run0, .*run7 and 2 more; name one"):
        found_place("load_run", tmp_path)


def test_anything_but_a_run_is_reported(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere does not exist"):
        found_place("load_run", tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"is not a run, but empty"):
        found_place("load_run", tmp_path)
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(CheckpointError, match=r"is not a run, but a file"):
        found_place("load_run", tmp_path / "a.txt")
    with pytest.raises(CheckpointError, match=r"is not a run, but a folder of a\.txt"):
        found_place("load_run", tmp_path)
    with pytest.raises(TypeError, match=r"a path must be a str"):
        found_place("load_run", 3)


def test_a_run_of_an_older_version_is_recognised(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for path in (tmp_path, tmp_path / "checkpoints"):
        with pytest.raises(CheckpointError, match=r"has checkpoints, but no network\.json.*--resume"):
            found_place("load_run", path)
