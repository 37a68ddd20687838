import json

import pytest

from nnjax.cli import main
from nnjax.commands.train import Train
from nnjax.commands.training.recurrent import bias_of, recurrent_network

QUICK = {"epochs": 1, "width": 16, "layers": 1, "context": 12, "batch_size": 4}


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("the cat sat on the mat and the rat sat on the cat. " * 40)
    return str(path)


def test_each_name_is_a_char_rnn_of_its_cell():
    o = Train(width=8, layers=2)
    assert recurrent_network("linear_rnn", 5, o).options == {"vocab": 5, "width": 8, "cell": "linear", "layers": 2}
    assert recurrent_network("char_rnn", 5, o).options["cell"] == "lstm"


def test_the_bias_is_told_in_numbers():
    def gradient(size):
        return lambda params, x, labels, *, weights=None, key=None: (0.0, {"w": params["w"] * size})

    import jax.numpy as jnp

    said = bias_of(7, gradient(0.5), gradient(1.0), {"w": jnp.ones(4)}, None, None)
    assert "every 7 characters" in said
    assert "0.5 of" in said
    assert "0.0 degrees" in said


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_linear_rnn_trains_is_compared_and_written_with_its_state_kept(words, tmp_path, capsys):
    folder = tmp_path / "run"
    assert Train(**QUICK, data=words, model="linear_rnn", folder=folder).run() == 0
    out = capsys.readouterr().out
    assert "linear_rnn 1 x 16" in out
    assert "hand / jax.grad  first step" in out
    assert "TOO FAR" not in out
    assert json.loads((folder / "metrics.jsonl").read_text())["validation_loss"] < 2.6
    with pytest.raises(SystemExit) as ended:
        main(["sample", str(folder), "--prompt", "the ", "--length", "30", "--temperature", "0"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out.strip()) > 20


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_truncated_char_rnn_trains_and_says_its_bias(words, capsys):
    assert Train(**QUICK, data=words, model="char_rnn", truncate=4).run() == 0
    out = capsys.readouterr().out
    assert "truncated every 4 characters" in out
    assert "degrees" in out
    assert "TOO FAR" not in out  # jax.grad of the definition is cut at the same steps


def test_truncation_of_what_has_none_is_refused(words):
    for model in (None, "linear_rnn"):
        with pytest.raises(ValueError, match="--truncate is an option of char_rnn"):
            Train(**QUICK, data=words, model=model, truncate=4).run()
    with pytest.raises(ValueError, match="truncate must be a positive int"):
        Train(**QUICK, data=words, model="char_rnn", truncate=0).run()
