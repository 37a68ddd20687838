import re

import jax
import pytest

from nnjax.cli import main
from nnjax.commands.sample import Sample
from nnjax.commands.train import Train
from nnjax.data.dataset import DataError
from nnjax.train import load_run
from nnjax.train.trained.network import Network, layer_of
from nnjax.train.trained.record import TEXT, Record

WORDS = Network("char_rnn", {"vocab": 4, "width": 4, "cell": "lstm", "layers": 1})
RECORD = Record(TEXT, "a.txt", WORDS, "softmax_cross_entropy", vocabulary="\nabc")


@pytest.fixture
def run(tmp_path, save_run):
    return save_run(tmp_path / "run", RECORD, layer_of(WORDS).init(jax.random.key(0)))


@pytest.mark.in_turn
def test_the_text_is_printed_as_it_is_made(run, capsys, monkeypatch):
    wanted = load_run(run).sample("ab", 12, seed=3, temperature=0.5, top_k=2)
    pieces = []
    monkeypatch.setattr("builtins.print", lambda *a, end="\n", flush=False: pieces.append("".join(a) + end))
    assert Sample(run, prompt="ab", length=12, seed=3, temperature=0.5, top_k=2).run() == 0
    assert pieces == ["ab", *wanted, "\n"]


def test_the_command_line_takes_them_and_says_what_is_wrong(run, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["sample", str(run), "--prompt", "abc", "--length", "5", "--top-k", "2", "--temperature", "0"])
    out, err = capsys.readouterr()
    assert (caught.value.code or 0, len(out), out[:3], err) == (0, 9, "abc", "")
    with pytest.raises(SystemExit) as caught:
        main(["sample", str(run), "--prompt", "abz"])
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.match(r"nnjax: error: text 'a\.txt' .*'z'; .*'\\nabc'\.\n$", err)


def test_an_invalid_request_prints_nothing(run, capsys):
    for options, error, message in (
        ({"length": 0}, ValueError, r"length must be a positive int"),
        ({"temperature": -1.0}, ValueError, r"temperature must be at least 0"),
        ({"top_k": 0}, ValueError, r"top_k must be a positive int"),
        ({"seed": -1}, ValueError, r"seed must be"),
        ({"prompt": "aé"}, DataError, r"'é'"),
    ):
        with pytest.raises(error, match=message):
            Sample(run, **options).run()
    assert capsys.readouterr().out == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"heads": 2},
        {"model": "llama", "heads": 4, "kv_heads": 2},
        {"model": "char_rnn"},
        {"heads": 2, "average": 0.9, "devices": 2, "mesh": "model=2"},
    ],
)
@pytest.mark.in_turn
def test_from_a_text_to_a_sample(tmp_path, capsys, options):
    (tmp_path / "words.txt").write_text("the cat sat on the mat; " * 200)
    folder = tmp_path / "run"
    size = {"layers": 1, "width": 16, "context": 16, "batch_size": 8, "epochs": 1}
    Train(data=str(tmp_path / "words.txt"), folder=folder, learning_rate=0.01, **size, **options).run()
    assert capsys.readouterr().out.splitlines()[-1] == f"to use it: nnjax sample {folder} --prompt the"
    assert Sample(folder, prompt="the cat", length=60, temperature=0.0).run() == 0
    assert "sat on the mat" in capsys.readouterr().out
