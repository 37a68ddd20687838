import json

import pytest

from nnjax.check import Diagnosis, Report, Row, merged
from nnjax.check.report import Where

GOOD = Row("dense", "params.w", "float32", "jit", "cpu", 1e-8, 1e-6, True)
BAD = GOOD._replace(error=1.0, ok=False, status="failed", diagnosis=Diagnosis("negated", "equals minus the reference"))


def test_a_row_is_ok_unless_it_failed():
    where = Where("dense", "float32", "jit", "cpu")
    assert where.row("params.w", error=1e-8, bound=1e-6, status="ok") == GOOD
    assert not where.row("params.w", error=1.0, bound=1e-6, status="failed").ok


def test_a_report_that_compared_nothing_is_not_ok():
    assert not Report(()).ok
    assert "nothing was compared" in str(Report(()))


def test_a_report_that_left_something_out_is_not_ok():
    report = Report((GOOD,), ("x in float64",))
    assert not report.ok
    assert "not compared: x in float64" in str(report)


def test_failures_are_named_and_raised():
    report = Report((GOOD, BAD))
    assert report.failures == (BAD,)
    with pytest.raises(AssertionError, match=r"(?s)dense: params\.w \[float32 jit cpu.*negated: equals minus the reference"):
        report.raise_if_failed()
    assert Report((GOOD,)).raise_if_failed().ok


def test_a_fault_that_shows_everywhere_is_reported_once():
    wide = BAD._replace(dtype="float64", transform="eager")
    elsewhere = [
        BAD._replace(leaf="params.b"),
        BAD._replace(witness="adjoint"),
        BAD._replace(diagnosis=Diagnosis("zero", "is zero")),
    ]
    text = str(Report((wide, wide._replace(transform="jit"), BAD, GOOD, BAD._replace(transform="scan"), *elsewhere)))
    assert text.splitlines() == [
        "FAILED: dense: params.w is negated: equals minus the reference (8 comparisons, 7 failed)",
        "dense: params.w [float64 eager cpu, reference] error 1, bound 1e-06: failed",
        "    negated: equals minus the reference",
        "    likewise: float64 jit, float32 jit scan",
        *(line for row in elsewhere for line in str(row).splitlines()),
    ]
    on_two = [BAD, BAD._replace(device="gpu", precision="high"), BAD._replace(device="gpu", precision="default")]
    assert "likewise: float32 gpu high jit, float32 gpu default jit" in str(Report(tuple(on_two)))


def test_the_finding_is_the_widest_row_that_says_most():
    unknown = BAD._replace(dtype="float64", diagnosis=Diagnosis("unknown", "off"))
    rows = (GOOD._replace(transform="vmap"), BAD._replace(dtype="bfloat16"), unknown)
    assert Report(rows).finding == "dense: params.w is negated: equals minus the reference"
    assert Report((GOOD._replace(transform="vmap"), BAD)).finding.endswith(", only in float32 jit")
    assert Report((GOOD,)).finding == ""


def test_what_is_zero_or_proves_nothing_is_counted():
    rows = (GOOD, GOOD._replace(status="zero"), GOOD._replace(status="zero"), GOOD._replace(status="vacuous"), BAD)
    assert str(Report(rows)).splitlines()[0].endswith("(5 comparisons, 2 rightly zero, 1 proving nothing, 1 failed)")


def test_failures_of_many_kinds_are_counted():
    many = [BAD._replace(leaf=f"params[{i}].w", transform=t) for i in range(22) for t in ("eager", "jit")]
    lines = str(Report(tuple(many))).splitlines()
    assert lines[-1] == "... and 4 more failures"
    assert sum("likewise: float32 jit" in line for line in lines) == 20


def test_to_dict_is_json():
    found = json.loads(json.dumps(Report((GOOD, BAD)).to_dict()))
    assert found["ok"] is False
    assert found["rows"][1]["diagnosis"] == {"kind": "negated", "detail": "equals minus the reference"}


def test_merged_keeps_every_row_and_omission():
    both = merged([Report((GOOD,)), Report((BAD,), ("gone",))])
    assert both.rows == (GOOD, BAD)
    assert both.missing == ("gone",)
