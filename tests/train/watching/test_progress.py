import re
import sys
import time

import pytest

from nnjax.train import Epoch
from nnjax.train.watching.progress import epoch_line, progress

RECORD = Epoch(3, 0.51234, 0.9, 0.8, 0.1234)


def test_a_line_names_everything_and_leaves_out_an_empty_split():
    assert epoch_line(RECORD, 40) == "epoch  3/40  loss 0.5123  validation 0.9000  test 0.8000  0.123 s"
    assert epoch_line(RECORD, 40, 1234).endswith("  0.123 s  10,000 examples/s")
    assert "validation" not in epoch_line(RECORD._replace(validation_accuracy=float("nan")), 40)


def test_a_line_on_numbers_says_r2_where_it_is_defined():
    nan = float("nan")
    numbers = Epoch(3, 0.51234, nan, nan, 0.1234, {"validation_r2": nan, "test_r2": 0.91})
    assert epoch_line(numbers, 40) == "epoch  3/40  loss 0.5123  test R² 0.9100  0.123 s"


def test_plain_lines_where_there_is_no_terminal(capsys):
    with progress(5) as watched:
        watched.on_epoch(RECORD)
    assert capsys.readouterr().out == epoch_line(RECORD, 5) + "\n"


def test_nothing_is_printed_with_quiet(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with progress(5, quiet=True) as watched:
        watched.on_epoch(RECORD)
    assert watched.on_steps is None
    assert capsys.readouterr().out == ""


def test_a_line_leaves_out_what_a_narrow_terminal_does_not_hold():
    long = epoch_line(RECORD, 40, 1234)
    for width in (60, 80, 120):
        line = epoch_line(RECORD, 40, 1234, width)
        assert long.startswith(line)
        assert len(line) <= width
    assert line == long
    assert epoch_line(RECORD, 40, 1234, 60).endswith("validation 0.9000  test 0.8000")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_bar_on_a_terminal_moves_within_an_epoch_and_fits(capsys, monkeypatch, width):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    shown = []

    def expect(start):
        """The last drawn line starts so before long, as it is drawn ten times a second."""
        end = time.monotonic() + 20
        while not (shown and shown[-1].startswith(start)):
            assert time.monotonic() < end, shown[-3:]
            time.sleep(0.05)
            out = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out)
            shown.extend(line for line in re.split(r"[\r\n]+", out) if line.strip())

    with progress(40, 1234, 50) as watched:
        expect("compiling")
        watched.on_steps(100, float("nan"))
        expect("epoch 3/40 ")
        watched.on_steps(125, 0.7)
        expect("epoch 3/40  loss 0.7000 ")
        watched.on_steps(150, 0.5)
        watched.on_epoch(RECORD)
        expect("epoch 3/40  loss 0.5123  accuracy 0.9000 ")
    after = shown[-1]
    assert "\u2501" in after
    assert epoch_line(RECORD, 40, 1234, width) in [line.rstrip() for line in shown]
    assert all(len(line) <= width for line in shown)
