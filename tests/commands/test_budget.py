import json
import math
import subprocess
import sys
import threading

import pytest

from nnjax.commands import budget as module
from nnjax.commands.budget import Budget, by_importance, expect_budget, refuse_beside_budget, write_json


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def run(budget, clock, seconds):
    """The cases that are reached, where each takes its seconds."""
    reached = []
    for name, took in seconds.items():
        if budget.begin(name):
            clock.now += took
            budget.ended(name)
            reached.append(name)
    return reached


def test_the_first_of_each_kind_comes_first_and_nothing_is_lost():
    names = ["dense", "conv", "conv, strided", "gpt", "relu"]
    assert by_importance(names, ("gpt", "conv", "lstm")) == ["gpt", "conv", "dense", "conv, strided", "relu"]
    assert by_importance(names, ("conv", "conv")) == ["conv", "conv, strided", "dense", "gpt", "relu"]


def test_a_case_that_may_not_fit_is_not_started_but_listed_with_the_reason():
    clock = Clock()
    budget = Budget(40.0, clock)
    budget.expects("abcd")
    assert budget.left() == 35  # some are reserved
    assert run(budget, clock, {"a": 20, "b": 1, "c": 1, "d": 1}) == ["a"]
    assert set(budget.not_reached) == {"b", "c", "d"}
    assert budget.not_reached["b"] == "may take 20.0 s, as cases before it did, with 15.0 s left"
    assert budget.to_dict() == {
        "budget_seconds": 40.0, "used_seconds": 20.0, "complete": False, "not_reached": budget.not_reached,
    }  # fmt: skip
    assert budget.summary() == "not reached, 3: b; c; d. 20 of 40 s used"


def test_a_single_long_case_changes_the_estimate_little():
    clock = Clock()
    budget = Budget(60.0, clock)
    names = [f"case {i}" for i in range(40)]
    budget.expects(names)
    reached = run(budget, clock, {name: 20 if name == "case 0" else 1 for name in names})
    assert len(reached) == 36  # 55 seconds, of which the first takes 20
    assert clock.now <= budget.end
    assert budget.expected() == 1
    budget.took = [9.0, 2.0]
    assert budget.expected() == 9


def test_a_long_budget_reserves_only_a_few_seconds():
    assert Budget(480.0, Clock()).left() == 475


def test_without_a_budget_all_is_reached_and_the_report_is_empty():
    clock = Clock()
    budget = Budget(None, clock)
    budget.expects("ab")
    assert run(budget, clock, {"a": 1e9, "b": 1e9}) == ["a", "b"]
    assert budget.to_dict() == {}
    assert budget.each(6.0) == 6.0


def test_what_runs_or_waits_counts_as_not_reached_until_it_has_ended():
    budget = Budget(10.0, Clock())
    budget.expects("ab")
    assert budget.begin("a")
    assert budget.not_reached == {
        "a": "started, and not finished when this was written", "b": "not started when this was written",
    }  # fmt: skip
    budget.ended("a")
    assert set(budget.not_reached) == {"b"}


def test_each_case_is_measured_for_half_of_its_share():
    clock = Clock()
    budget = Budget(105.0, clock)
    budget.expects("abcde")
    assert budget.each(20.0) == 10
    assert budget.each(6.0) == 6
    clock.now += 200
    assert budget.each(6.0) == 0.05


def test_when_time_runs_out_results_are_saved_and_the_process_ends(monkeypatch, capsys):
    left, saved = threading.Event(), []
    monkeypatch.setattr(module, "leave", lambda code: (saved.append(code), left.set()))
    budget = Budget(0.01)
    budget.expects("ab")
    budget.begin("a")
    with budget.watched(lambda: 1):
        assert left.wait(30)
    assert saved == [1]
    assert "the time ran out during a" in capsys.readouterr().out


def test_a_run_that_ends_before_its_time_is_left_alone(monkeypatch):
    monkeypatch.setattr(module, "leave", lambda code: pytest.fail("ended"))
    for seconds in (1e6, None):
        with Budget(seconds).watched(lambda: pytest.fail("saved")):
            pass
    assert threading.active_count() < 20


@pytest.mark.in_turn
def test_a_thread_that_never_ends_does_not_hold_the_process():
    code = (
        "import time; from nnjax.commands.budget import Budget\n"
        "b = Budget(0.2); b.expects('a'); b.begin('a')\n"
        "with b.watched(lambda: 3): time.sleep(600)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout.splitlines()[0].startswith("the time ran out during a;")) == (3, True)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan])
def test_an_invalid_budget_is_refused(seconds):
    with pytest.raises(ValueError, match=r"bench: budget must be a positive number of seconds, got "):
        expect_budget("bench", seconds)
    expect_budget("bench", None)
    expect_budget("bench", 0.5)


def test_options_that_do_not_fit_are_refused_by_name():
    refuse_beside_budget("check", "is light", full=False, mesh=None)
    with pytest.raises(ValueError, match=r"check: --budget is light, .*mesh"):
        refuse_beside_budget("check", "is light", full=False, mesh="data=2")


def test_a_file_is_written_whole_or_stays_unchanged(tmp_path):
    file = tmp_path / "found.json"
    write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert json.loads(file.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]
    write_json(None, {"a": object()})
