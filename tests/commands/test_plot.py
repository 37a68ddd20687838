import json
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

from nnjax.commands.plot import STEP, Plot, columns
from nnjax.commands.train import Train
from nnjax.train import save
from nnjax.train.step import init_state
from nnjax.train.watching.watch import APART, NORM

LINE = '{"epoch": 1, "loss": 0.5, "validation_accuracy": 0.5, "test_accuracy": null}'


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_run_is_drawn_with_gradients_and_drift(tmp_path, capsys):
    Train(folder=tmp_path, epochs=2, hidden=(8,), trajectory=20).run()
    capsys.readouterr()
    assert Plot(tmp_path).run() == 0
    names = ["curves.png", "gradients.png", "trajectory.png"]
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in names]
    for name in names:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert len(columns(tmp_path / "trajectory.jsonl", STEP)["params_apart"]) == 20


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, by the name of the file."""
    from matplotlib.figure import Figure

    saved, save = {}, Figure.savefig

    def kept(self, file, **options):
        saved[Path(file).name] = self
        return save(self, file, **options)

    monkeypatch.setattr(Figure, "savefig", kept)
    return saved


def recorded(folder, epochs=1, **more):
    folder.mkdir(parents=True)
    lines = [
        {"epoch": i, "loss": 1 / i, "validation_accuracy": 0.5, "test_accuracy": None, **more} for i in range(1, epochs + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_one_epoch_is_a_point(tmp_path, drawn):
    gradients = {APART: 1e-7, **{f"{NORM}[{i}].w": 0.5 for i in range(30)}}
    assert Plot(recorded(tmp_path / "one", **gradients)).run() == 0
    assert set(drawn) == {"curves.png", "gradients.png"}
    for figure in drawn.values():
        for ax in figure.axes:
            assert all(line.get_marker() == "." for line in ax.lines if len(line.get_xdata()) == 1)
            assert [t for t in ax.get_xticks() if 0.9 < t < 1.1] == [1]
    assert len(drawn["gradients.png"].axes[0].get_legend().get_texts()) < 12
    Plot(recorded(tmp_path / "many", 100)).run()
    assert {line.get_marker() for line in drawn["curves.png"].axes[0].lines} == {""}


def test_several_runs_are_drawn_in_one_picture_under_their_names(tmp_path, drawn, capsys, monkeypatch):
    runs = [
        recorded(tmp_path / "a" / "run", 3, validation_loss=0.5),
        recorded(tmp_path / "b" / "run", 2),
        recorded(tmp_path / "c"),
    ]
    monkeypatch.chdir(tmp_path)
    assert Plot(runs[0], tuple(runs[1:])).run() == 0
    assert capsys.readouterr().out.endswith("\ncompare.png\n")
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    (figure,) = drawn.values()
    names = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert names == [str(runs[0]), str(runs[1]), "c"]
    assert Plot(runs[0], (runs[2],), out=tmp_path / "mine.svg").run() == 0
    assert "<svg" in (tmp_path / "mine.svg").read_text()


def test_several_runs_are_told_side_by_side(tmp_path, drawn, capsys, monkeypatch):
    runs = [recorded(tmp_path / name, 2, validation_loss=loss) for name, loss in (("small", 2.25), ("large", 1.75))]
    params = {"small": jnp.zeros((3, 4)), "large": (jnp.zeros((50, 20)), jnp.zeros(7))}
    for run in runs:
        state = init_state(params[run.name], optax.adam(0.1), jax.random.key(0))  # adam's averages are no parameters
        save(run / "checkpoints", state, step=70)
    monkeypatch.setenv("COLUMNS", "80")
    Plot(runs[0], (runs[1], recorded(tmp_path / "unsaved")), out=tmp_path / "x.png").run()
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in told if line.split()[:1] in (["small"], ["large"])] == [
        ["small", "12", "70"], ["large", "1,007", "70"],
    ]  # fmt: skip
    assert sum("2.2500" in line for line in told) == sum("1.7500" in line for line in told) == 1
    assert next(line for line in told if "unsaved" in line).split()[1:3] == ["-", "-"]
    assert max(map(len, told)) <= 80


def test_runs_on_numbers_are_compared_by_r2(tmp_path, drawn):
    nan = float("nan")
    runs = [recorded(tmp_path / n, 2, validation_accuracy=nan, test_accuracy=nan, test_r2=0.5, **more)
            for n, more in (("a", {"validation_r2": 0.25}), ("b", {"validation_r2": nan}))]  # fmt: skip
    Plot(runs[0], (runs[1],), out=tmp_path / "r2.png").run()
    (figure,) = drawn.values()
    lines = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[1].lines}
    assert lines == {str(runs[0].name): [0.25, 0.25], f"{runs[1].name}, test": [0.5, 0.5]}
    assert figure.axes[1].get_ylabel() == "R²"


def test_a_picture_that_cannot_be_written_is_reported(tmp_path):
    runs = [recorded(tmp_path / name) for name in "ab"]
    with pytest.raises(OSError, match=r"could not be written: .*; free space, or choose another place"):
        Plot(runs[0], (runs[1],), out=tmp_path / "nowhere" / "x.png").run()
    with pytest.raises(ValueError, match=r"--out is only for the picture of several runs"):
        Plot(runs[0], out=tmp_path / "x.png").run()
    with pytest.raises(ValueError, match=r"c.metrics\.jsonl does not exist"):
        Plot(runs[0], (tmp_path / "c",)).run()


def test_what_is_missing_or_not_json_is_reported(tmp_path):
    with pytest.raises(ValueError, match=r"metrics\.jsonl does not exist; train with --folder"):
        Plot(tmp_path).run()
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"is empty: no epoch has ended"):
        Plot(tmp_path).run()
    (tmp_path / "metrics.jsonl").write_text(f"{LINE}\n{LINE[:9]}")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2, is not a JSON object: .*; delete the line"):
        Plot(tmp_path).run()
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 1, is not a record: loss must be a number, which is missing"):
        Plot(tmp_path).run()
    (tmp_path / "metrics.jsonl").write_text(f"{LINE}\n")
    (tmp_path / "trajectory.jsonl").write_text(f"{LINE}\n")
    with pytest.raises(ValueError, match=r"trajectory\.jsonl, line 1, is not a record: step must be a whole number"):
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
