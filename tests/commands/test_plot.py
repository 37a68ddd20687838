import json

import pytest

from nnjax.commands.plot import STEP, Plot, columns
from nnjax.commands.train import Train

LINE = '{"epoch": 1, "loss": 0.5, "validation_accuracy": 0.5, "test_accuracy": null}'


@pytest.mark.slow
def test_a_run_is_drawn_with_gradients_and_drift(tmp_path, capsys):
    Train(folder=tmp_path, epochs=2, hidden=(8,), trajectory=20).run()
    capsys.readouterr()
    assert Plot(tmp_path).run() == 0
    names = ["curves.png", "gradients.png", "trajectory.png"]
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in names]
    for name in names:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert len(columns(tmp_path / "trajectory.jsonl", STEP)["params_apart"]) == 20


def test_what_is_missing_or_no_json_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"metrics\.jsonl is not there; train with --folder"):
        Plot(tmp_path).run()
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"is empty: no epoch has ended yet; wait for one"):
        Plot(tmp_path).run()
    (tmp_path / "metrics.jsonl").write_text(f"{LINE}\n{LINE[:9]}")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2, is no JSON object: .*; delete the line"):
        Plot(tmp_path).run()
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 1, is no record: loss must be a number, which is missing"):
        Plot(tmp_path).run()
    (tmp_path / "metrics.jsonl").write_text(f"{LINE}\n")
    (tmp_path / "trajectory.jsonl").write_text(f"{LINE}\n")
    with pytest.raises(ValueError, match=r"trajectory\.jsonl, line 1, is no record: step must be a whole number"):
        Plot(tmp_path).run()


def test_r2_is_drawn_where_there_are_no_accuracies(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, file, **_: drawn.append(figure.axes[1]))
    line = {"loss": 0.5, "validation_accuracy": None, "test_accuracy": None, "validation_r2": None}
    lines = [json.dumps({"epoch": i + 1, **line, "test_r2": r2}) for i, r2 in enumerate((-30.0, 0.2, 0.9))]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert Plot(tmp_path).run() == 0
    (ax,) = drawn
    assert ax.get_ylabel() == "R²"
    assert [drawn_line.get_label() for drawn_line in ax.lines] == ["test"]
    assert list(ax.lines[0].get_ydata()) == [-30.0, 0.2, 0.9]
    assert ax.get_ylim()[0] == -1
