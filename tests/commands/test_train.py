import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from nnjax.commands.plot import Plot
from nnjax.commands.train import Train
from nnjax.train import CheckpointError, load

QUICK = {"epochs": 2, "hidden": (8,)}


@pytest.mark.parametrize("grad", ["hand", "jax", "both"])
@pytest.mark.parametrize("model", ["mlp", "nielsen"])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_every_gradient_trains_and_is_reported(capsys, grad, model):
    rate = {"mlp": 0.01, "nielsen": 0.1}[model]
    assert Train(grad=grad, model=model, learning_rate=rate, **QUICK).run() == 0
    out = capsys.readouterr().out
    assert "test accuracy" in out
    assert "an epoch (median)" in out
    assert out.count(": ok") == 2
    assert "first step: relative difference" in out


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
@pytest.mark.slow
@pytest.mark.in_turn
def test_a_run_that_is_asked_to_stop_is_saved_and_resumes(tmp_path, number):
    def command(epochs, *more):
        program = f"""
import re
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
    assert "and saved; add --resume" in out
    reached = [json.loads(line)["epoch"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert reached == list(range(1, len(reached) + 1))
    resumed = subprocess.run(command(len(reached) + 2, "--resume"), capture_output=True, text=True, check=True)
    lines = [line for line in resumed.stdout.splitlines() if line.startswith("epoch")]
    assert [int(line.split()[1].split("/")[0]) for line in lines] == [len(reached) + 1, len(reached) + 2]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == len(reached) + 2
    assert "test accuracy" in resumed.stdout


@pytest.mark.in_turn
def test_resuming_with_something_else_says_what_differs(tmp_path, capsys):
    Train(folder=tmp_path, **QUICK).run()
    with pytest.raises(CheckpointError, match=r"batch_size was 32, is 16; learning_rate was 0\.002, is 0\.1\. Resume"):
        Train(folder=tmp_path, resume=True, learning_rate=0.1, batch_size=16, **QUICK).run()
    with pytest.raises(CheckpointError, match=r"already has checkpoints, up to step 78; .*--resume"):
        Train(folder=tmp_path, **QUICK).run()
    assert Train(folder=tmp_path, resume=True, **QUICK).run() == 0
    assert "saving in" in capsys.readouterr().out


@pytest.mark.in_turn
def test_a_run_saved_by_a_version_with_fewer_options_is_resumed(tmp_path, monkeypatch):
    today = Train._checkpoints

    def of_old(self):
        saved = today(self)
        early = {name: value for name, value in saved.configuration.items() if name != "standardise"}
        return saved._replace(configuration={**early, "channels": (20, 40)})  # it was the default once

    with monkeypatch.context() as m:
        m.setattr(Train, "_checkpoints", of_old)
        assert Train(folder=tmp_path, **QUICK).run() == 0
    assert Train(folder=tmp_path, resume=True, **QUICK).run() == 0
    with pytest.raises(CheckpointError, match="standardise was False, is True"):
        Train(folder=tmp_path, resume=True, standardise=True, **QUICK).run()


@pytest.mark.in_turn
def test_data_are_known_by_what_they_hold_when_a_run_is_resumed(tmp_path, monkeypatch):
    digits = load("digits").train
    x, y = digits.x[:100], digits.y[:100]
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    run = {**QUICK, "folder": tmp_path / "run"}
    assert Train(data=str(tmp_path / "mine.npz"), **run).run() == 0
    monkeypatch.chdir(tmp_path)
    assert Train(data="mine.npz", resume=True, **run).run() == 0  # the same file by another path
    np.savez(tmp_path / "mine.npz", x=x, y=np.roll(y, 1))
    with pytest.raises(CheckpointError, match=r"data was 'mine\.npz, SHA-256 \w{16}', is 'mine\.npz, SHA-256 \w{16}'\. Resume"):
        Train(data="mine.npz", resume=True, **run).run()


@pytest.mark.in_turn
def test_your_own_file_trains_expanded_and_standardised(tmp_path, capsys):
    digits = load("digits").train
    np.savez(tmp_path / "mine.npz", x=digits.x[:100], y=digits.y[:100])
    assert Train(data=str(tmp_path / "mine.npz"), expand=True, standardise=True, **QUICK).run() == 0
    assert "mine.npz: 400 examples to train on, 10 to test" in capsys.readouterr().out


@pytest.mark.in_turn
def test_features_that_are_not_scaled_get_a_hint(tmp_path, capsys):
    digits = load("digits").train
    np.savez(tmp_path / "mine.npz", x=255 * digits.x[:100], y=digits.y[:100])
    for standardise in (False, True):
        Train(data=str(tmp_path / "mine.npz"), standardise=standardise, **QUICK).run()
        assert ("note: features reach 255; --standardise gives each" in capsys.readouterr().out) is not standardise


@pytest.mark.slow
@pytest.mark.in_turn
def test_another_feedback_is_reported_trained_and_measured(tmp_path, capsys):
    assert Train(feedback="random", epochs=2, hidden=(16,), folder=tmp_path).run() == 0
    out = capsys.readouterr().out
    assert "errors sent back by random feedback" in out
    assert "hand / jax.grad" not in out
    assert re.search(r"\[0\]\.w +\d+\.\d first, +\d+\.\d last\n\[2\]\.w +0\.0 first, +0\.0 last", out)
    assert Plot(tmp_path).run() == 0
    assert (tmp_path / "angles.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feedback": "transposed"}, r"unknown feedback 'transposed'.*did you mean 'transpose'"),
        ({"feedback": "inverse"}, r"feedback\.inverse: w must be square to have an inverse, got float32 \(64, 10\)"),
        ({"feedback": "random", "grad": "both"}, r"--feedback random gives no gradient .*jax\.grad"),
        ({"feedback": "mirror", "model": "nielsen"}, r"got feedback 'mirror'; use the model mlp"),
    ],
)
def test_invalid_feedback_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Train(epochs=1, **options).run()


@pytest.mark.in_turn
def test_quiet_prints_only_the_result(capsys):
    assert Train(quiet=True, **QUICK).run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["test", "validation", "seconds", "hand", "last"]
