import json
from pathlib import Path

import pytest

from nnjax.commands import reproduce
from nnjax.commands.reproduce import Reproduce
from nnjax.data.text import make_text
from nnjax.reproduce.book import Stopped
from nnjax.reproduce.nanogpt import Configuration, train_nanogpt

SHARED = Path(__file__).parents[2] / "shared" / "data"
TEXT = make_text("words", "the cat sat on the mat and the rat sat on the cat. " * 40)
SMALL = Configuration(layers=1, heads=2, width=16, context=12, batch_size=4, steps=40, every=20, warmup=5)


@pytest.mark.slow
@pytest.mark.in_turn
def test_nanogpt_prints_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "load", lambda name: TEXT)
    monkeypatch.setattr(reproduce, "train_nanogpt", lambda text, seed, **how: train_nanogpt(text, seed, SMALL, **how))
    assert Reproduce("nanogpt", results=tmp_path / "results", seeds=2).run() == 0
    assert "seed 1: validation loss" in capsys.readouterr().out
    found = json.loads((tmp_path / "results" / "nanogpt.json").read_text())
    assert [r["seed"] for r in found["runs"]] == [0, 1]
    assert found["published"] == 1.88


def test_a_signal_is_reported_and_is_the_exit_code(tmp_path, monkeypatch, capsys):
    def stopped(*args, **how):
        raise Stopped("SIGTERM")

    monkeypatch.setattr(reproduce, "reproduce", stopped)
    monkeypatch.setattr(reproduce, "load_images", lambda name: None)
    assert Reproduce("nielsen", results=tmp_path).run() == 128 + 15
    assert "stopped by SIGTERM and saved" in capsys.readouterr().out


def test_bad_options_are_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="seeds must be at least 1, got 0"):
        Reproduce("nielsen", seeds=0).run()
    monkeypatch.setattr(reproduce, "load", lambda name: TEXT)
    monkeypatch.setattr(reproduce.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="--peers needs PyTorch, which is not installed"):
        Reproduce("nanogpt", peers=True, results=tmp_path).run()


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="the real MNIST files are not beside this checkout")
@pytest.mark.in_turn
def test_the_books_first_network_reaches_its_accuracy(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NNJAX_DATA", str(SHARED))
    assert Reproduce("nielsen", only="[784, 30, 10]", folder=tmp_path, results=tmp_path).run() == 0
    (row,) = json.loads((tmp_path / "nielsen.json").read_text())["rows"]
    assert row["ours"] >= 95.3
    assert "[784, 30, 10], quadratic: the book 95.42 %" in capsys.readouterr().out


def test_feedback_is_compared_on_digits_and_on_mnist_only_where_it_is(tmp_path, monkeypatch, capsys):
    done = []
    monkeypatch.setattr(reproduce, "compare", lambda setting, data, seeds, file: done.append((setting.data, data.name, seeds)))
    monkeypatch.delenv("NNJAX_DATA", raising=False)
    assert Reproduce("feedback", seeds=2, results=tmp_path).run() == 0
    assert done == [("digits", "digits", 2)]
    assert str(tmp_path / "feedback.json") in capsys.readouterr().out
    if SHARED.is_dir():
        monkeypatch.setenv("NNJAX_DATA", str(SHARED))
        Reproduce("feedback", results=tmp_path).run()
        assert done[1:] == [("digits", "digits", 1), ("mnist", "mnist", 1)]
