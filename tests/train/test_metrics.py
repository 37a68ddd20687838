import json
import sys
import types
from pathlib import Path

import pytest

from nnjax.train import Epoch
from nnjax.train.metrics import Writers, log


def test_an_epoch_is_a_line_and_a_run_that_went_back_drops_what_came_after(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for number in (1, 2, 3, 2):
        log(path, Epoch(number, 1 / number, float("nan"), 0.5, 2.0), 100)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert lines[1] == {
        "epoch": 2, "loss": 0.5, "validation_accuracy": None, "test_accuracy": 0.5, "seconds": 2.0, "examples_per_second": 50.0,
    }  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_tensorboard_gets_every_number(tmp_path):
    record = Epoch(1, 0.5, float("nan"), 0.75, 2.0, {"gradient norm of w": 3.0})
    with Writers(tmp_path, 100, tensorboard=True) as write:
        write(record)
    (path,) = (tmp_path / "tensorboard").iterdir()
    content = path.read_bytes()
    for name in (b"loss", b"test_accuracy", b"gradient_norm_of_w", b"examples_per_second"):
        assert name in content
    assert b"validation_accuracy" not in content
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["gradient norm of w"] == 3.0


def test_weights_and_biases_gets_the_same_and_what_is_not_installed_is_said(monkeypatch):
    logged = []
    run = types.SimpleNamespace(log=lambda values, step: logged.append((step, values)), finish=lambda: logged.append("end"))
    library = types.SimpleNamespace(init=lambda project, config: logged.append((project, config)) or run)
    monkeypatch.setitem(sys.modules, "wandb", library)
    with Writers(None, 100, wandb="digits", configuration={"seed": 3}) as write:
        write(Epoch(1, 0.5, 0.6, 0.75, 2.0))
    assert logged[0] == ("digits", {"seed": 3})
    assert logged[1][0] == 1
    assert logged[1][1]["validation_accuracy"] == 0.6
    assert logged[2] == "end"
    for name, options in (("wandb", {"wandb": "digits"}), ("tensorboardX", {"tensorboard": True})):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ValueError, match=rf"needs {name}: python -m pip install 'nnjax\["):
            Writers(Path("run"), 100, **options)
