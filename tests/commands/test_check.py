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
from nnjax.check.report import Row
from nnjax.commands import check as command
from nnjax.commands.budget import Budget
from nnjax.commands.check import Check


@pytest.mark.in_turn
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


@pytest.mark.in_turn
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
@pytest.mark.in_turn
def test_mutants_are_counted_beside_the_false_alarms(capsys, monkeypatch):
    monkeypatch.setattr(mutants, "KINDS", tuple(k for k in KINDS if k.name in ("sign", "zero")))
    assert Check(only="tanh", mutants=True).run() == 0
    out = capsys.readouterr().out
    assert "over 1 seed, 0 failed" in out
    assert "killed 4 / 4 mutants" in out


def test_bad_names_are_refused():
    with pytest.raises(ValueError, match=r"unknown case 'rleu'.*did you mean 'relu'"):
        Check(only="rleu").run()
    with pytest.raises(ValueError, match=r"cannot write .*folder .*nowhere does not exist"):
        Check(only="relu", json=Path("nowhere/check.json")).run()
    with pytest.raises(ValueError, match=r"no device of platform 'gpux' .*cpu"):
        Check(device="gpux").run()
    with pytest.raises(ValueError, match=r"check: seeds must be a positive int, got 0"):
        Check(seeds=0).run()


class Clock:
    """A clock that only cases move, by their duration."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def timed(monkeypatch):
    """Every check takes ten seconds of the clock; the list holds its arguments."""
    clock, asked = Clock(), []

    def check(layer, *args, **how):
        clock.now += 10
        asked.append((layer.name, how))
        return Report((GOOD._replace(case=layer.name),))

    monkeypatch.setattr(command, "check_layer", check)
    monkeypatch.setattr(command, "workers", lambda budget: 1)
    monkeypatch.setattr(command, "Budget", lambda seconds: Budget(seconds, clock))
    return asked


GOOD = Row("", "x", "float32", "jit", "cpu", 0.1, 1.0, True)


@pytest.mark.in_turn
def test_within_a_budget_the_important_come_first_and_the_others_are_listed(capsys, tmp_path, timed):
    file = tmp_path / "check.json"
    assert Check(device="cpu", budget=66.0, json=file).run() == 0
    out = capsys.readouterr().out
    assert [name for name, _ in timed][:3] == ["gpt", "attention(4, 2)", "linear_cross_entropy"]
    assert len(timed) == 6  # of 61 seconds
    assert timed[0][1]["dtypes"] == ("float32", "bfloat16")
    assert timed[0][1]["transforms"] == ("jit",)
    found = json.loads(file.read_text())
    assert (found["ok"], found["complete"], found["budget_seconds"]) == (True, False, 66.0)
    reached = {row["case"] for row in found["rows"]}
    every = {case.name for case in command.cases()}
    assert len(reached) == 6
    assert reached | set(found["not_reached"]) == every
    assert not reached & set(found["not_reached"])
    assert "10.0 s" in found["not_reached"]["mlp"]
    assert f"not reached, {len(every) - 6}: " in out
    assert "0 failed, in 0 of 6 cases" in out
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.in_turn
def test_a_file_is_complete_after_every_case(monkeypatch, tmp_path, timed):
    written = []
    real = command.write_json
    monkeypatch.setattr(
        command, "write_json", lambda file, found: (real(file, found), written.append(json.loads(file.read_text())))
    )
    Check(device="cpu", budget=45.0, json=tmp_path / "check.json").run()
    every = {case.name for case in command.cases()}
    for after, found in zip(range(1, 5), written):
        done = {row["case"] for row in found["rows"]}
        assert len(done) == after
        assert done | set(found["not_reached"]) == every
    assert "not started when this was written" in written[0]["not_reached"].values()


@pytest.mark.slow
@pytest.mark.in_turn
def test_within_a_budget_a_failure_is_the_exit_code_and_an_error_ends_nothing(capsys, monkeypatch, timed):
    good = command.check_layer
    for fault in (lambda *a, **h: Report((GOOD._replace(ok=False, status="failed"),)), lambda *a, **h: 1 / 0):
        monkeypatch.setattr(
            command, "check_layer", lambda layer, *a, f=fault, **h: (f if layer.name == "tanh" else good)(layer)
        )
        assert Check(device="cpu", budget=1e6).run() == 1
        out = capsys.readouterr().out
        assert "FAILED tanh" in out
        assert f"in 1 of {len(command.cases())} cases" in out
        assert "every case was reached" in out
    assert "tanh: could not be checked: ZeroDivisionError: division by zero" in out


def test_options_that_do_not_fit_a_budget_are_refused():
    for wrong, word in (
        (Check(budget=0.0), "check: budget must be a positive number of seconds, got 0.0"),
        (Check(budget=60.0, mesh="data=2"), "check: --budget .*--mesh"),
        (Check(budget=60.0, full=True), "--budget .*--full"),
        (Check(budget=60.0, mutants=True), "--budget .*--mutants"),
    ):
        with pytest.raises(ValueError, match=word):
            wrong.run()


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_case_is_really_checked_within_a_budget(tmp_path):
    assert Check(device="cpu", only="relu", budget=600.0, json=tmp_path / "check.json").run() == 0
    found = json.loads((tmp_path / "check.json").read_text())
    assert found["complete"]
    assert {(row["dtype"], row["transform"]) for row in found["rows"]} == {("float32", "jit"), ("bfloat16", "jit")}
