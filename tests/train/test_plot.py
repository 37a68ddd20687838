import pytest

from nnjax.train.command import Train
from nnjax.train.plot import Plot, columns


def test_a_run_is_drawn_with_gradients_and_drift(tmp_path, capsys):
    Train(folder=tmp_path, epochs=2, hidden=(8,), trajectory=20).run()
    capsys.readouterr()
    assert Plot(tmp_path).run() == 0
    names = ["curves.png", "gradients.png", "trajectory.png"]
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in names]
    for name in names:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert len(columns(tmp_path / "trajectory.jsonl")["params_apart"]) == 20


def test_what_is_missing_or_no_json_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"metrics\.jsonl is not there; train with --folder"):
        Plot(tmp_path).run()
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"is empty: no epoch has ended yet; wait for one"):
        Plot(tmp_path).run()
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2, is no JSON object: .*; delete the line, or train"):
        Plot(tmp_path).run()
