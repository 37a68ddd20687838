import sys
import time

import pytest

from nnjax.bench.ahead import compiling
from nnjax.bench.ahead.compiling import compile_all
from nnjax.bench.ahead.figures import Figures

FAKE = """
import json, os, sys, time

def say(**what):
    print(json.dumps(what), flush=True)

labels = ["a", "stuck", "dead", "wrong", "b"]
if sys.argv[1] == "broken":
    sys.exit(3)
for line in sys.stdin:
    kind, arguments, without = json.loads(line)
    if kind == "unknown":
        say(error="no such case")
        continue
    say(labels=labels)
    for label in labels:
        if label in without:
            continue
        if label == "stuck":
            time.sleep(60)
        if label == "dead":
            os._exit(7)
        if label == "wrong":
            say(label=label, error="does not compile")
        else:
            say(label=label, figures=dict(launches=len(arguments), temp_bytes=1, argument_bytes=2, flops=None, bytes=None,
                                          compile_seconds=0.1))
    say(done=True)
"""


@pytest.fixture(autouse=True)
def fake(tmp_path, monkeypatch):
    tmp_path.joinpath("fake.py").write_text(FAKE)
    monkeypatch.setattr(compiling, "COMMAND", (sys.executable, str(tmp_path / "fake.py")))


@pytest.mark.in_turn
def test_a_program_that_hangs_or_crashes_affects_only_itself():
    told = []
    start = time.perf_counter()
    every = compile_all(["x", "y"], [("bench", ("one",)), ("bench", ("two", "more"))], lambda *what: told.append(what), 1.0)
    assert time.perf_counter() - start < 50  # and not the minute of the program that hangs
    for found in every.values():
        for n, unit in enumerate(found, 1):
            assert list(unit) == ["a", "stuck", "dead", "wrong", "b"]
            assert unit["a"] == unit["b"] == Figures(n, 1, 2, None, None, 0.1)
            assert unit["stuck"] == "not compiled in 1 s"
            assert "exit code 7" in str(unit["dead"])
            assert unit["wrong"] == "does not compile"
    assert sorted((target, unit[1][0]) for target, unit, _ in told) == [(t, u) for t in "xy" for u in ("one", "two")]


def test_a_compiler_that_does_not_start_is_reported_for_every_unit():
    every = compile_all(["broken"], [("bench", ("one",))], lambda *_: None, 20.0)
    assert "exit code 3" in str(every["broken"][0][""])


def test_a_unit_that_cannot_be_made_raises():
    with pytest.raises(ValueError, match="zzz: no such case"):
        compile_all(["x"], [("unknown", ("zzz",))], lambda *_: None, 20.0)
