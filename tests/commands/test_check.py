import json
import re
import time
from pathlib import Path

import jax
import pytest

from nnjax.check import Report
from nnjax.check.layers import crowded
from nnjax.check.mutation import mutants
from nnjax.check.mutation.mutant_kinds import KINDS, on_cotangents
from nnjax.commands import check as command
from nnjax.commands.check import Check


def test_a_case_is_checked_and_every_row_is_written(capsys, tmp_path):
    assert Check(only="relu", json=tmp_path / "check.json", device="cpu").run() == 0
    out = capsys.readouterr().out
    assert "ok     relu " in out
    assert "0 failed, in 0 of 2 cases" in out
    assert re.search(r"largest share of its bound that an error takes: float64 0\.\d\d, float32 0\.\d\d, bfloat16", out)
    found = json.loads((tmp_path / "check.json").read_text())
    assert found["ok"]
    assert {row["case"] for row in found["rows"]} == {"relu", "leaky_relu(0.1)"}
    assert found["jax"]
    assert found["date"]
    assert found["precisions"] == {"cpu": ["highest"]}
    assert {row["dtype"] for row in found["rows"]} == {"float64", "float32", "bfloat16", "float16"}


def test_a_wrong_layer_exits_with_1(capsys, monkeypatch):
    right = next(case for case in command.cases() if case.name == "tanh")
    layer = on_cotangents(right.layer, lambda r, residuals, ct_y: ((), -r[1]))
    monkeypatch.setattr(command, "cases", lambda: (right._replace(layer=layer),))
    assert Check().run() == 1
    assert "negated: equals minus the reference" in capsys.readouterr().out


def test_programs_are_dropped_between_units_once_they_take_up_too_much(monkeypatch):
    running, crowd, dropped = [], [], []

    def check(layer, *args, **how):
        running.append(1)
        crowd.append(1)
        time.sleep(0.01)
        running.pop()
        return Report(())

    def forget():
        assert not running
        dropped.append(len(crowd))
        crowd.clear()

    monkeypatch.setattr(command, "check_layer", check)
    monkeypatch.setattr(command, "crowded", lambda: len(crowd) > 20)
    monkeypatch.setattr(command, "forget", forget)
    Check(only="dropout", seeds=33).run()
    assert sum(dropped) + len(crowd) == 2 * 33
    assert len(dropped) == 2
    assert max(dropped) <= 20 + 2 * command.SEEDS


def test_a_process_with_few_maps_is_not_crowded_and_one_with_many_is(monkeypatch, tmp_path):
    assert not crowded()
    many = tmp_path / "maps"
    many.write_text("a line\n" * 40_000)
    monkeypatch.setattr("nnjax.check.layers.Path", lambda name: many if name == "/proc/self/maps" else Path(name))
    monkeypatch.setattr(Path, "read_text", lambda self: "65530\n")
    assert crowded()


def test_the_setting_of_the_compiler_is_left_as_it_was(monkeypatch):
    setting = []
    monkeypatch.setattr(
        command,
        "check_layer",
        lambda *args, **how: setting.append(jax.config.read("jax_disable_most_optimizations")) or Report(()),
    )
    for before in (False, True):
        jax.config.update("jax_disable_most_optimizations", before)
        Check(only="dropout").run()
        Check(only="dropout", full=True).run()
        assert jax.config.read("jax_disable_most_optimizations") == before
    assert setting == [True, True, False, False, True, True, True, True]


@pytest.mark.slow
def test_mutants_are_counted_beside_the_false_alarms(capsys, monkeypatch):
    monkeypatch.setattr(mutants, "KINDS", tuple(k for k in KINDS if k.name in ("sign", "zero")))
    assert Check(only="tanh", mutants=True).run() == 0
    out = capsys.readouterr().out
    assert "over 1 seed, 0 failed" in out
    assert "killed 4 / 4 mutants" in out


def test_bad_names_are_refused():
    with pytest.raises(ValueError, match=r"unknown case 'rleu'.*did you mean 'relu'"):
        Check(only="rleu").run()
    with pytest.raises(ValueError, match=r"cannot write .*: there is no folder .*nowhere; make it first"):
        Check(only="relu", json=Path("nowhere/check.json")).run()
    with pytest.raises(ValueError, match=r"no device of platform 'gpux' here; present are"):
        Check(device="gpux").run()
    with pytest.raises(ValueError, match=r"check: seeds must be a positive int, got 0"):
        Check(seeds=0).run()
