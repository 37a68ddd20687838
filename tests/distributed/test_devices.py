import json
import os
import re
import subprocess
import sys

import pytest

from nnjax.commands.train import Train
from nnjax.distributed.devices import mesh_sizes
from nnjax.train import CheckpointError

QUICK = {"epochs": 2, "hidden": (8,)}


def epochs_of(out):
    return [line.split("  ")[1:4] for line in out.splitlines() if line.startswith("epoch")]


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_mesh_has_the_epochs_of_one_device_and_is_described(capsys):
    assert Train(**QUICK).run() == 0
    alone = capsys.readouterr().out
    assert "devices" not in alone
    assert Train(**QUICK, mesh="data=4,model=2", devices=8).run() == 0
    out = capsys.readouterr().out
    assert "on 8 devices (cpu), mesh data=4, model=2" in out
    assert out.count(": ok") == 2
    assert epochs_of(out) == epochs_of(alone)


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_run_on_a_mesh_is_saved_and_resumed_on_another_and_on_one_device(tmp_path, capsys):
    Train(**QUICK, mesh="data=2,shard=2", folder=tmp_path).run()
    for epochs, options in ((3, {"devices": 4}), (4, {})):
        again = Train(**{**QUICK, "epochs": epochs}, **options, folder=tmp_path, resume=True)
        assert again.run() == 0
    assert [json.loads(line)["epoch"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4]
    with pytest.raises(CheckpointError, match=r"learning_rate was 0\.002, is 0\.1"):
        Train(**QUICK, devices=2, learning_rate=0.1, folder=tmp_path, resume=True).run()


@pytest.mark.slow
@pytest.mark.in_turn
def test_text_trains_on_a_mesh(tmp_path, capsys):
    (tmp_path / "cat.txt").write_text("the cat sat on the mat; " * 50)
    options = {
        "layers": 1,
        "width": 16,
        "heads": 2,
        "context": 8,
        "batch_size": 4,
        "epochs": 1,
        "data": str(tmp_path / "cat.txt"),
    }
    assert Train(**options, mesh="data=2,model=2").run() == 0
    out = capsys.readouterr().out
    assert re.search(r"hand / jax.grad +first step.*: ok", out)
    assert "sample: " in out
    assert Train(**options, mesh="shard=2", l2=300.0, l1=3.0, weight_decay=0.1).run() == 0
    assert re.search(r"hand / jax.grad +first step.*: ok", capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_cpu_shows_as_many_devices_as_are_asked_for():
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX", "XLA"))}
    program = "from nnjax.cli import main; main({!r})"

    def run(*argv):
        return subprocess.run([sys.executable, "-c", program.format(argv)], capture_output=True, text=True, env=environment)

    done = run("train", "--epochs", "1", "--batch-size", "30", "--devices", "3")
    assert "on 3 devices (cpu), mesh data=3" in done.stdout
    assert done.returncode == 0
    done = run("train", "--epochs", "1", "--batch-size", "30", "--mesh", "data=3")
    assert done.returncode == 2
    assert "the mesh needs 3 devices, got 1 of platform cpu; pass --devices 3 to simulate them." in done.stderr


def test_meshes_from_text():
    assert mesh_sizes(None, None) is None
    assert mesh_sizes(None, 8) == {"data": 8}
    assert mesh_sizes("data=4, model=2", None) == {"data": 4, "model": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, r"train: devices must be a positive int, got 0"),
        ({"mesh": "data=4,modle=2"}, r"--mesh .*data, shard, model.* got 'modle=2'"),
        ({"mesh": "data=0"}, r"got 'data=0'"),
        ({"mesh": ""}, r"got ''"),
        ({"mesh": "data=2,data=2"}, r"--mesh .*each axis once, got 'data=2,data=2'"),
        ({"mesh": "data=2", "devices": 4}, r"--mesh data=2 needs 2 devices, got --devices 4"),
        ({"mesh": "data=16"}, r"the mesh needs 16 devices, got 8 of platform cpu; pass --devices 16"),
        ({"devices": 16}, r"the mesh needs 16 devices, got 8 of platform cpu"),
        ({"devices": 8, "batch_size": 30}, r"batch size must be a multiple of 8, .* \(data=8\), got 30"),
        ({"devices": 2, "model": "nielsen"}, r"--model nielsen works on one device only"),
        ({"devices": 2, "feedback": "random"}, r"--feedback random works on one device only"),
        ({"devices": 2, "grad": "both"}, r"--grad both works on one device only"),
        ({"devices": 2, "trajectory": 3}, r"--trajectory works on one device only"),
        ({"mesh": "model=8", "hidden": (12,)}, r"n_out must be a multiple of 8, the size of the mesh axis 'model', got 12"),
        ({"mesh": "model=2", "model": "lenet", "channels": (2,)}, r"the mesh axis model needs an mlp.* got lenet"),
    ],
)
def test_invalid_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Train(epochs=1, **options).run()
