import io

import pytest
from rich.console import Console

from nnjax.bench.measure import Comparison
from nnjax.bench.peaks import Shares
from nnjax.bench.table import Entry
from nnjax.commands.bench_table import Measured, of_peaks, printed, summary

FOUND = Comparison("a case, bfloat16", 2.0, {"jax.grad": 0.5, "checkpoint": 0.4}, (0.9, 1.1), 1.0, 0.2, 1.0, {"hand": 1}, 5)
ENTRY = Entry("a case", lambda: pytest.fail("made"))


def shown(width: int, *measured: Measured) -> str:
    console = Console(width=width, file=io.StringIO())
    printed(list(measured), console)
    return console.file.getvalue()


def test_the_shares_are_shown_where_there_is_room():
    measured = Measured(ENTRY, FOUND, {"flax": 0.9}, Shares(0.41, 0.072))
    for width in (120, 160):
        text = shown(width, measured)
        for word in ("% of peak", "41 / 7", "0.500", "yes"):
            assert word in text, width
        assert max(map(len, text.splitlines())) <= width
    for width in (60, 80):
        assert "of peak" not in shown(width, measured)
    assert "of peak" not in shown(160, measured._replace(shares=None))


def test_what_is_not_known_is_a_dash():
    assert of_peaks(Shares(None, 0.5)) == "- / 50"
    assert of_peaks(None) == ""


def test_the_summary_names_what_was_missed():
    missed = Measured(ENTRY, FOUND._replace(case="another", time_ratios={"jax.grad": 2.0}), {})
    text = summary([Measured(ENTRY, FOUND, {}), missed])
    assert text.splitlines() == [
        "geometric mean of 2 cases: time 1.000, temp 0.200", "targets met: 1 of 2", "  missed: another",
    ]  # fmt: skip
