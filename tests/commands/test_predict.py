import csv

import jax
import numpy as np
import polars as pl
import pytest
from PIL import Image

from nnjax.commands.predict import Predict, usage
from nnjax.commands.train import Train
from nnjax.data.text import make_text
from nnjax.train import load_run
from nnjax.train.trained.network import Network, layer_of
from nnjax.train.trained.record import CLASSES, NUMBERS, TEXT, Record, Rows, Targets

NETWORK = Network("mlp", {"sizes": [3, 2], "activation": "relu"})
RECORD = Record(CLASSES, "mine.npz", NETWORK, "softmax_cross_entropy", rows=Rows((3,)), classes=2)
X = np.random.default_rng(0).normal(size=(25, 3))


@pytest.fixture
def run(tmp_path, save_run):
    return save_run(tmp_path / "run", RECORD, layer_of(NETWORK).init(jax.random.key(0)))


def table(path):
    """Features of very different size, two of which decide; 40 examples are held out for the test."""
    r = np.random.default_rng(1)
    z = r.normal(size=(240, 3))
    x, y = z * [1e-3, 1.0, 1e5] + [0, 50, -2e6], (z[:, 0] + z[:, 2] > 0).astype(int) + (z[:, 1] > 1)
    np.savez(path, x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    return x[200:], y[200:]


@pytest.mark.parametrize("options", [{}, pytest.param({"average": 0.9, "feedback": "mirror"}, marks=pytest.mark.slow)])
@pytest.mark.in_turn
def test_from_raw_rows_to_a_trained_network_to_predictions(tmp_path, capsys, options):
    x, y = table(tmp_path / "mine.npz")
    folder, data = tmp_path / "run", str(tmp_path / "mine.npz")
    Train(data=data, standardise=True, hidden=(8,), epochs=40, learning_rate=0.02, folder=folder, **options).run()
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"to use it: nnjax predict {folder} {data}"
    trained = load_run(folder)
    reported = trained.history[-1].test_accuracy
    assert reported > 0.8
    for rows in (x, x.astype(np.float32), np.asfortranarray(x), x[::-1][::-1]):
        assert (trained.predict(rows).classes == y).mean() == reported
    assert Predict(folder, data).run() == 0
    assert f"accuracy  {reported:.4f} ({round(reported * 40)} of 40)" in capsys.readouterr().out


def test_the_first_rows_are_shown_and_the_accuracy_where_it_is_known(run, tmp_path, capsys):
    classes = load_run(run).predict(X).classes
    np.savez(tmp_path / "new.npz", x=X, y=1 - classes)
    assert Predict(run, str(tmp_path / "new.npz")).run() == 0
    out = capsys.readouterr().out
    assert "on all of new.npz: 25" in out
    assert "... and 15 more; --out FILE has all" in out
    assert out.endswith("accuracy  0.0000 (0 of 25)\n")
    np.savez(tmp_path / "mine.npz", x=X[:4])
    Predict(run, str(tmp_path / "mine.npz")).run()
    out = capsys.readouterr().out
    assert "accuracy" not in out
    assert "--part test" in out
    np.savez(tmp_path / "one.npz", x=X[0])
    assert Predict(run, str(tmp_path / "one.npz")).run() == 0
    np.savez(tmp_path / "none.npz", x=X[:0], y=classes[:0])
    assert Predict(run, str(tmp_path / "none.npz")).run() == 0


def test_everything_is_written_to_a_file(run, tmp_path, capsys):
    found = load_run(run).predict(X)
    np.savez(tmp_path / "new.npz", x=X, y=found.classes)
    Predict(run, str(tmp_path / "new.npz"), out=tmp_path / "out.npz").run()
    with np.load(tmp_path / "out.npz") as arrays:
        np.testing.assert_array_equal(arrays["classes"], found.classes)
        np.testing.assert_array_equal(arrays["probabilities"], found.probabilities)
        np.testing.assert_array_equal(arrays["y"], found.classes)
    Predict(run, str(tmp_path / "new.npz"), out=tmp_path / "out.csv").run()
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert list(rows[0]) == ["row", "class", "probability of 0", "probability of 1", "label"]
    assert [int(row["class"]) for row in rows] == found.classes.tolist()
    written = np.array([row["probability of 1"] for row in rows], np.float32)
    np.testing.assert_array_equal(written, found.probabilities[:, 1])


def test_a_file_that_cannot_be_written_is_refused_before_any_work(run, tmp_path):
    np.savez(tmp_path / "new.npz", x=X)
    before = sorted(p.name for p in tmp_path.iterdir())
    for out, message in (
        ("a.txt", r"must end in \.npz or \.csv"), ("no/a.csv", r"does not exist"), ("new.npz", r"overwrite the data"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Predict(run, str(tmp_path / "new.npz"), out=tmp_path / out).run()
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(ValueError, match=r"is a folder"):
        Predict(run, str(tmp_path / "new.npz"), out=tmp_path / "d.csv").run()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*before, "d.csv"])


def test_a_skipped_checkpoint_is_reported(tmp_path, save_run, capsys):
    run = save_run(tmp_path / "run", RECORD, layer_of(NETWORK).init(jax.random.key(0)), (1, 2), (0.5, 0.5))
    (run / "checkpoints" / "00000002" / "manifest.json").write_text("{}")
    np.savez(tmp_path / "new.npz", x=X)
    assert Predict(run, str(tmp_path / "new.npz")).run() == 0
    out, err = capsys.readouterr()
    assert "step 1, on" in out
    assert err.startswith("skipped: ")
    assert "00000002 is damaged" in err


@pytest.mark.in_turn
def test_a_network_of_text_is_refused_before_the_data_are_read(tmp_path, save_run):
    words = Network("char_rnn", {"vocab": 4, "width": 4, "cell": "lstm", "layers": 1})
    record = Record(TEXT, "a.txt", words, "softmax_cross_entropy", vocabulary="\nabc")
    run = save_run(tmp_path / "run", record, layer_of(words).init(jax.random.key(0)))
    with pytest.raises(ValueError, match=r"use sample"):
        Predict(run, str(tmp_path / "nowhere.npz")).run()


def test_the_command_that_uses_a_run_can_be_pasted(tmp_path):
    text = make_text("a.txt", "-- 'It's\n\"all's well that ends well\" she said")
    assert usage(tmp_path / "my run", "a.txt", text) == f"to use it: nnjax sample '{tmp_path}/my run' --prompt well"
    assert usage(tmp_path, "a.txt", make_text("a.txt", "-" * 30)) == f"to use it: nnjax sample {tmp_path}"


def priced(path):
    """A .csv of numbers to predict, with 40 rows of features of very different size."""
    r = np.random.default_rng(0)
    z = r.normal(size=(200, 3))
    x, y = z * [1e-3, 1.0, 1e5] + [0, 50, -2e6], 5e5 + 1e5 * (z @ [1.0, -2.0, 0.5] + 0.3 * r.normal(size=200))
    pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "price": y}).write_csv(path)
    return {"standardise": True, "standardise_targets": True, "learning_rate": 0.05}


def kinds(path):
    r = np.random.default_rng(0)
    x = r.normal(size=(200, 2))
    names = np.array(["ant", "bee", "cat"])[(x[:, 0] > 0) * 1 + (x[:, 1] + 0.3 * r.normal(size=200) > 0)]
    pl.DataFrame({"kind": names, "a": x[:, 0], "b": x[:, 1]}).write_parquet(path)
    return {"target": "kind", "learning_rate": 0.05}


def pictures(path):
    r = np.random.default_rng(0)
    for k, name in enumerate(("dark", "red")):
        (path / name).mkdir(parents=True)
        for i in range(60):
            pixels = r.integers(0, 120, (7, 9, 3), np.uint8)
            pixels[..., 0] += np.uint8(100 * (k ^ (i % 8 == 0)))  # some are of the other class
            Image.fromarray(pixels).save(path / name / f"{i}.png")
    return {"model": "lenet", "channels": (2,), "learning_rate": 0.01, "batch_size": 4}


@pytest.mark.parametrize(("name", "make"), [("mine.csv", priced), ("mine.parquet", kinds), ("mine", pictures)])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_predict_gives_the_test_accuracy_of_training(tmp_path, capsys, name, make):
    data, folder = tmp_path / name, tmp_path / "run"
    options = make(data)
    Train(data=str(data), folder=folder, hidden=(4,), epochs=3, **options).run()
    capsys.readouterr()
    last = load_run(folder).history[-1]
    assert Predict(folder, str(data), "test", out=tmp_path / "out.csv").run() == 0
    out = capsys.readouterr().out
    reported = last.measured["test_r2"] if make is priced else last.test_accuracy
    assert 0.5 < reported <= 1
    assert f"{'R²' if make is priced else 'accuracy'}  {reported:.4f} (" in out
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    if make is priced:
        y, p = (np.array([row[title] for row in rows], float) for title in ("price", "predicted price"))
        assert 1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum() == pytest.approx(reported, abs=1e-4)
    else:
        assert np.mean([row["class"] == row["label"] for row in rows]) == pytest.approx(reported)
        assert {row["label"] for row in rows} <= {"ant", "bee", "cat", "dark", "red"}
    assert make is not pictures or rows[0]["file"].endswith(".png")


NUMBERS_RECORD = Record(
    NUMBERS, "mine.npz", NETWORK, "mean_squared_error", rows=Rows((3,)), targets=Targets((2,), None, ("up", "down"))
)


def test_several_targets_are_shown_and_written_in_their_columns(tmp_path, save_run, capsys):
    run = save_run(tmp_path / "run", NUMBERS_RECORD, layer_of(NETWORK).init(jax.random.key(0)))
    found = load_run(run).predict(X).numbers
    np.savez(tmp_path / "new.npz", x=X, y=found)
    Predict(run, str(tmp_path / "new.npz"), out=tmp_path / "out.npz").run()
    assert "R²  1.0000 (of 25, mean of 2 targets)" in capsys.readouterr().out
    with np.load(tmp_path / "out.npz") as arrays:
        np.testing.assert_array_equal(arrays["numbers"], found)
    np.savez(tmp_path / "none.npz", x=X[:0])
    Predict(run, str(tmp_path / "none.npz"), out=tmp_path / "out.csv").run()
    assert (tmp_path / "out.csv").read_text().split() == ["row,predicted", "up,predicted", "down"]
    assert "R²" not in capsys.readouterr().out
