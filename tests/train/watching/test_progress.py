import sys

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
    with progress(5) as on_epoch:
        on_epoch(RECORD)
    assert capsys.readouterr().out == epoch_line(RECORD, 5) + "\n"


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with progress(5) as on_epoch:
        on_epoch(RECORD)
    assert "3/5" in capsys.readouterr().out
