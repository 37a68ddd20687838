import json

import pytest

import nnjax
from nnjax.commands.train import Train

QUICK = {"epochs": 1, "width": 16, "heads": 2, "layers": 1, "context": 12, "batch_size": 4}


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("the cat sat on the mat and the rat sat on the cat. " * 40)
    return str(path)


@pytest.mark.parametrize("model", [None, "llama", "char_rnn"])
@pytest.mark.slow
@pytest.mark.in_turn
def test_your_own_text_trains_is_compared_and_sampled(words, tmp_path, capsys, model):
    folder = tmp_path / "run"
    sizes = {name: n for name, n in QUICK.items() if name != "heads" or model != "char_rnn"}
    options = {**sizes, "data": words, "model": model, "folder": folder, "average": 0.9, "clip": 1.0, "l2": 0.1, "l1": 0.1}
    assert Train(**options).run() == 0
    out = capsys.readouterr().out
    assert "words.txt: 1836 characters to train on, 204 to validate, 13 different ones" in out
    assert f"{model or 'gpt'} 1 x 16" in out
    assert "hand / jax.grad  first step: relative difference" in out
    assert "TOO FAR" not in out
    assert "validation loss " in out
    assert "sample: '" in out
    line = json.loads((folder / "metrics.jsonl").read_text())
    assert line["validation_loss"] < 2.6
    assert line["hand against jax"] < 1e-5
    assert any(name.startswith("gradient norm of ") for name in line)
    assert line["test_accuracy"] is None
    assert Train(**options, resume=True).run() == 0


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_mixture_of_experts_trains_is_resumed_and_writes_again(words, tmp_path, capsys):
    options = {**QUICK, "data": words, "model": "moe", "experts": 3, "top_k": 2, "folder": tmp_path / "run"}
    assert Train(**options).run() == 0
    out = capsys.readouterr().out
    assert "moe 1 x 16, 2 heads, 2 of 3 experts" in out
    assert "hand / jax.grad  first step: relative difference" in out
    assert "TOO FAR" not in out
    assert "sample: '" in out
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text())["validation_loss"] < 2.6
    assert Train(**options, resume=True).run() == 0
    assert len(nnjax.train.load_run(tmp_path / "run").sample("the cat", 20)) == 20


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_lower_precision_trains_too(words, capsys):
    assert Train(data=words, compute_dtype="bfloat16", microbatches=2, dropout=0.1, **QUICK).run() == 0
    assert "computed in bfloat16, in 2 microbatches" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.in_turn
def test_both_gradients_are_compared_and_saved(words, tmp_path, capsys):
    assert Train(data=words, grad="both", folder=tmp_path / "run", **QUICK).run() == 0
    assert "compared with jax.grad at every step" in capsys.readouterr().out


def test_a_model_of_images_is_refused(words):
    with pytest.raises(ValueError, match=r"lenet is a model of images and tables.*choose --model gpt, "):
        Train(data=words, model="lenet", **QUICK).run()
    with pytest.raises(ValueError, match=r"--grad both .* got --compute-dtype bfloat16; leave one of them out"):
        Train(data=words, grad="both", compute_dtype="bfloat16", **QUICK).run()
    for options in ({"hidden": (4,)}, {"standardise": True}, {"loss": "mean_squared_error"}, {"trajectory": 3}):
        with pytest.raises(ValueError, match=rf"--{next(iter(options))} is an option of mlp, lenet.* got it with gpt"):
            Train(data=words, **options, **QUICK).run()
    with pytest.raises(ValueError, match=r"--heads is an option of gpt.* got it with char_rnn; leave it out"):
        Train(data=words, model="char_rnn", **{**QUICK, "heads": 2}).run()


@pytest.mark.slow
@pytest.mark.in_turn
def test_quiet_prints_only_the_result(words, tmp_path, capsys):
    assert Train(data=words, quiet=True, folder=tmp_path / "run", **QUICK).run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["hand", "validation", "sample:", "to"]
