import json
import os
import sys
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.commands.train import Train
from nnjax.train import Checkpoints, Epoch
from nnjax.train.watching.metrics import Writers, expect_records, log, read_lines, relog, told_before, values


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


def test_weights_and_biases_gets_the_same_and_a_missing_library_is_reported(monkeypatch):
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


def epochs(n):
    return [Epoch(i, 1 / i, 0.5, float("nan"), 2.0, {"validation_loss": 0.25 * i}) for i in range(1, n + 1)]


def test_numbers_of_numpy_and_jax_and_paths_are_written(tmp_path):
    record = Epoch(
        np.int64(1), np.float32(0.5), jnp.float32(0.25), np.float64("nan"), np.float32(2.0),
        {"a": jnp.bfloat16(1.5), "b": np.uint8(7), "c": Path("x") / "y", "d": np.array([1.0, 2.0]), "e": jnp.float32("nan"),
         "f": np.bool_(True), "g": None},
    )  # fmt: skip
    for examples in (100, np.int64(100)):
        log(tmp_path / "metrics.jsonl", record, examples)
    log(tmp_path / "metrics.jsonl", record._replace(epoch=jnp.int32(2)), 100)
    first, second = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first == {
        "epoch": 1, "loss": 0.5, "validation_accuracy": 0.25, "test_accuracy": None, "seconds": 2.0,
        "examples_per_second": 50.0, "a": 1.5, "b": 7, "c": "x/y", "d": [1.0, 2.0], "e": None, "f": True, "g": None,
    }  # fmt: skip
    assert second == {**first, "epoch": 2}


def test_what_cannot_be_written_is_named_and_the_file_is_left_as_it_was(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log(path, epochs(1)[0], 100)
    before = path.read_text()
    for wrong in (object(), {1, 2}, lambda: 0, 1j):
        with pytest.raises(TypeError, match=r"metrics: strange cannot be saved as JSON, got"):
            log(path, Epoch(2, 0.5, 0.5, 0.5, 1.0, {"strange": wrong}), 100)
        with pytest.raises(TypeError, match=r"metrics: strange\['inside'\] cannot be saved as JSON"):
            values(Epoch(2, 0.5, 0.5, 0.5, 1.0, {"strange": {"inside": wrong}}), 100)
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


GOOD = json.dumps({"epoch": 1, "loss": 0.5, "validation_accuracy": None, "test_accuracy": 1})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"is not a JSON object: "),
        ("", r"is not a JSON object: "),
        ("[" * 100_000, r"is not a JSON object: "),
        ("3", r"is not a JSON object, but '3'"),
        ('[["epoch", 1], ["loss", 2]]', r"is not a JSON object, but '\[\[\"epoch"),
        ("null", r"is not a JSON object, but 'null'"),
        ("{}", r"is not a record: epoch must be a whole number, which is missing"),
        (GOOD.replace('"epoch": 1', '"epoch": "1"'), r"is not a record: epoch must be a whole number, got '1'"),
        (GOOD.replace('"epoch": 1', '"epoch": 1.5'), r"is not a record: epoch must be a whole number, got 1\.5"),
        (GOOD.replace('"epoch": 1', '"epoch": null'), r"is not a record: epoch must be a whole number, got None"),
        (GOOD.replace('"epoch": 1', '"epoch": true'), r"is not a record: epoch must be a whole number, got True"),
        (GOOD.replace("0.5", "[0.5]"), r"is not a record: loss must be a number, got \[0\.5\]"),
        (GOOD.replace("test_accuracy", "text_accuracy"), r"is not a record: test_accuracy must be a number, which is missing"),
    ],
)
def test_a_line_that_is_not_a_record_is_a_sentence(tmp_path, line, message):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{GOOD}\n{line}\n")
    for f in (
        lambda: read_lines(path), lambda: log(path, epochs(2)[1], 100), lambda: relog(path, epochs(2), 100),
        lambda: expect_records(tmp_path), Train(folder=tmp_path, epochs=1).run,
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"metrics\.jsonl, line 2, {message}.*; delete the line"):
            f()
    assert path.read_text() == f"{GOOD}\n{line}\n"
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"metrics\.jsonl cannot be read: .*; remove it, or choose another folder"):
        read_lines(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=r"metrics\.jsonl cannot be read: .*directory"):
        expect_records(tmp_path)
    expect_records(None)
    expect_records(tmp_path / "none")


def test_a_full_disk_is_a_sentence_and_what_was_there_stays(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    log(path, epochs(1)[0], 100)
    before = path.read_text()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"metrics\.jsonl could not be written: No space left on device; free space"):
        log(path, epochs(2)[1], 100)
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_lines_that_are_missing_are_written_again_from_the_history(tmp_path):
    path, history = tmp_path / "metrics.jsonl", epochs(3)
    for record in history:
        log(path, record, 100)
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    for left in ("", lines[0], lines[2], lines[0] + lines[2], whole, whole + GOOD.replace('"epoch": 1', '"epoch": 4') + "\n"):
        path.write_text(left)
        told_before(Checkpoints(tmp_path), Writers(tmp_path, 100)).on_history(tuple(history))
        assert path.read_text() == whole
    path.unlink()
    relog(path, history, 100)
    assert path.read_text() == whole
    own = whole.replace('"loss": 0.5', '"loss": 0.5, "mine": 1')  # what is there stays
    path.write_text(own)
    before = path.stat().st_mtime_ns
    relog(path, history, 100)
    assert path.read_text() == own
    assert path.stat().st_mtime_ns == before
    assert told_before(None, Writers(None, 100)) is None
    Writers(None, 100).restore(history)


@pytest.mark.parametrize("how", ["deleted", "a line deleted"])
@pytest.mark.slow
@pytest.mark.in_turn
def test_a_resumed_run_writes_again_what_was_deleted(tmp_path, how, capsys):
    path = tmp_path / "metrics.jsonl"
    run = {"hidden": (4,), "batch_size": 500, "folder": tmp_path}
    assert Train(epochs=2, **run).run() == 0
    before = path.read_text().splitlines()
    if how == "deleted":
        path.unlink()
    else:
        path.write_text(before[1] + "\n")
    assert Train(epochs=3, resume=True, **run).run() == 0
    after = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["epoch"] for line in after] == [1, 2, 3]
    assert after[:2] == [json.loads(line) for line in before]
    capsys.readouterr()


def test_the_mode_of_the_file_follows_the_umask(tmp_path):
    for umask, mode in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(umask)
        try:
            log(tmp_path / "metrics.jsonl", epochs(1)[0], 100)
        finally:
            os.umask(before)
        assert (tmp_path / "metrics.jsonl").stat().st_mode & 0o777 == mode
