import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from nnjax.train import CheckpointError, command, load
from nnjax.train.command import Train

QUICK = {"epochs": 2, "hidden": (8,)}


@pytest.mark.parametrize("grad", ["hand", "jax", "both"])
@pytest.mark.parametrize("model", ["mlp", "nielsen"])
def test_every_gradient_trains_and_is_reported(capsys, grad, model):
    rate = {"mlp": 0.01, "nielsen": 0.1}[model]
    assert Train(grad=grad, model=model, learning_rate=rate, **QUICK).run() == 0
    out = capsys.readouterr().out
    assert "test accuracy" in out
    assert "an epoch (median)" in out
    assert out.count(": ok") == 2
    assert "first step: relative difference" in out


def test_both_gives_the_parameters_of_hand(capsys):
    losses = []
    for grad in ("hand", "both"):
        Train(grad=grad, **QUICK).run()
        losses.append([line.split("  ")[1] for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")])
    assert losses[0] == losses[1]


def test_a_wrong_gradient_fails_the_run(capsys, monkeypatch):
    right = command.make_recipe

    def wrong(*args, **kwargs):
        made = right(*args, **kwargs)

        def hand(params, x, labels, **rest):
            value, (first, *others) = made.hand(params, x, labels, **rest)
            return value, (first._replace(w=first.w * 1.001), *others)

        return made._replace(hand=hand)

    monkeypatch.setattr(command, "make_recipe", wrong)
    assert Train(grad="both", **QUICK).run() == 1
    out = capsys.readouterr().out
    assert "the gradient by hand left its error budget: params[0].w at step 1 differs by" in out
    assert "TOO FAR APART" in out
    assert Train(grad="hand", **QUICK).run() == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_is_saved_and_resumes(tmp_path, number):
    def command(epochs, *more):
        program = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # in a shell's background job it is ignored
from nnjax.cli import main
main(['train', '--epochs', '{epochs}', '--folder', {str(tmp_path)!r}, *{more!r}])
"""
        return [sys.executable, "-c", program]

    with subprocess.Popen(command(100_000), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while not process.stdout.readline().startswith("epoch"):
            pass
        process.send_signal(number)
        out, err = process.communicate()
    assert process.returncode == 128 + number
    assert err == ""
    assert f"stopped by {number.name} after step" in out
    assert "and saved; the same command with --resume goes on" in out
    reached = [json.loads(line)["epoch"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert reached == list(range(1, len(reached) + 1))
    resumed = subprocess.run(command(len(reached) + 2, "--resume"), capture_output=True, text=True, check=True)
    lines = [line for line in resumed.stdout.splitlines() if line.startswith("epoch")]
    assert [int(line.split()[1].split("/")[0]) for line in lines] == [len(reached) + 1, len(reached) + 2]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == len(reached) + 2
    assert "test accuracy" in resumed.stdout


def test_resuming_with_something_else_says_what_differs(tmp_path, capsys):
    Train(folder=tmp_path, **QUICK).run()
    with pytest.raises(CheckpointError, match=r"batch_size was 32, is 16; learning_rate was 0\.002, is 0\.1\. Resume"):
        Train(folder=tmp_path, resume=True, learning_rate=0.1, batch_size=16, **QUICK).run()
    with pytest.raises(CheckpointError, match=r"has checkpoints up to step 78; resume from them"):
        Train(folder=tmp_path, **QUICK).run()
    assert Train(folder=tmp_path, resume=True, **QUICK).run() == 0
    assert "saving in" in capsys.readouterr().out


def test_a_file_of_ones_own_trains_expanded_and_standardised(tmp_path, capsys):
    digits = load("digits").train
    np.savez(tmp_path / "mine.npz", x=digits.x[:100], y=digits.y[:100])
    assert Train(data=str(tmp_path / "mine.npz"), expand=True, standardise=True, **QUICK).run() == 0
    assert "mine.npz: 400 examples to train on, 10 to test" in capsys.readouterr().out
