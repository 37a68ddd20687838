import io

import pytest
from rich.console import Console

from nnjax.bench.measure import Comparison
from nnjax.bench.peaks import Shares
from nnjax.bench.rows.entry import Entry
from nnjax.commands.bench_table import Measured, of_peaks, printed, summary

FOUND = Comparison("a case, bfloat16", 2.0, {"jax.grad": 0.5, "checkpoint": 0.4}, (0.9, 1.1), 1.0, 0.2, 1.0, {"hand": 1}, 5)
ENTRY = Entry("a case", lambda: pytest.fail("made"))


def shown(width: int, *measured: Measured) -> str:
    console = Console(width=width, file=io.StringIO())
    printed(list(measured), console)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("width", "there", "missing"),
    [
        (60, ("a case", "2.000", "0.500", "0.200", "yes"), ("target", "of peak", "flax")),
        (80, ("a case", "target", "yes"), ("of peak", "flax", "self")),
        (100, ("a case", "41 / 7", "target"), ("flax", "self", "compile")),
        (120, ("a case, bfloat16", "41 / 7", "flax", "self 5-95 %"), ("compile",)),
        (160, ("a case, bfloat16", "41 / 7", "flax", "self 5-95 %", "compile", "products / memory"), ()),
    ],
)
def test_there_are_as_many_columns_as_fit(width, there, missing):
    text = shown(width, Measured(ENTRY, FOUND, {"flax": 0.9}, Shares(0.41, 0.072)))
    assert [word for word in there if word not in text] == []
    assert [word for word in missing if word in text] == []
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


def test_an_unknown_value_is_a_dash():
    assert of_peaks(Shares(None, 0.5)) == "- / 50"
    assert of_peaks(None) == ""


def test_the_summary_names_what_was_missed():
    missed = Measured(ENTRY, FOUND._replace(case="another", time_ratios={"jax.grad": 2.0}), {})
    text = summary([Measured(ENTRY, FOUND, {}), missed])
    assert text.splitlines() == [
        "geometric mean of 2 cases: time 1.000, temp 0.200", "targets met: 1 of 2", "  missed: another",
    ]  # fmt: skip
