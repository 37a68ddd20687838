import json

import pytest

from nnjax.check import Diagnosis, Report, Row, merged

GOOD = Row("dense", "params.w", "float32", "jit", "cpu", 1e-8, 1e-6, True)
BAD = GOOD._replace(error=1.0, ok=False, status="failed", diagnosis=Diagnosis("negated", "equals minus the reference"))


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


def test_to_dict_is_json():
    found = json.loads(json.dumps(Report((GOOD, BAD)).to_dict()))
    assert found["ok"] is False
    assert found["rows"][1]["diagnosis"] == {"kind": "negated", "detail": "equals minus the reference"}


def test_merged_keeps_every_row_and_omission():
    both = merged([Report((GOOD,)), Report((BAD,), ("gone",))])
    assert both.rows == (GOOD, BAD)
    assert both.missing == ("gone",)
