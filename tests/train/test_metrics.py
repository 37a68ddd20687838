import json

from nnjax.train import Epoch
from nnjax.train.metrics import log


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
