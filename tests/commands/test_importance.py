import pytest

from nnjax.bench.kinds import kinds
from nnjax.bench.rows.entry import Entry
from nnjax.bench.table import entries
from nnjax.cases import cases
from nnjax.commands import importance
from nnjax.commands.budget import by_importance


def test_every_name_that_comes_first_is_of_a_case_of_its_own():
    for first, table in ((importance.CHECK, cases()), (importance.BENCH, entries())):
        names = [case.name for case in table]
        ordered = by_importance(names, first)
        assert sorted(ordered) == sorted(names)
        assert all(name.startswith(start) for name, start in zip(ordered, first))
    assert by_importance([case.name for case in cases()], importance.CHECK)[:3] == ["gpt", "attention", "linear_cross_entropy"]


def test_the_important_are_measured_in_every_kind_before_the_others():
    table = [Entry(name, lambda: pytest.fail("made")) for name in ("relu", "lstm, T = 9", "gpt 1 x 8", "dense")]
    table[2] = table[2]._replace(peers=lambda seconds: {})
    both = kinds(("float32", "bfloat16"), ("default",))
    assert list(importance.units(table, both, peers=True, hurried=True)) == [
        "gpt 1 x 8", "lstm, T = 9", "gpt 1 x 8, beside other libraries", "gpt 1 x 8, bfloat16", "lstm, T = 9, bfloat16",
        "relu", "dense", "relu, bfloat16", "dense, bfloat16",
    ]  # fmt: skip
    assert list(importance.units(table[:3], both[:1], peers=False, hurried=False)) == ["relu", "lstm, T = 9", "gpt 1 x 8"]


def test_many_processors_check_more_cases_at_once_within_a_budget(monkeypatch):
    for processors, expected in ((1, 2), (2, 2), (16, 4), (64, 4), (None, 2)):
        monkeypatch.setattr(importance.os, "cpu_count", lambda n=processors: n)
        assert importance.workers(60.0) == expected
        assert importance.workers(None) == 2
