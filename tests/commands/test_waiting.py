import re
import sys
import time

from nnjax.commands.waiting import waiting


def test_a_terminal_shows_what_is_done_and_for_how_long_and_nothing_stays(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with waiting("reading the data"):
        time.sleep(0.3)
        print("a line of its own")
    out = capsys.readouterr().out
    assert re.search(r"reading the data.*0:00:00", out)
    assert "a line of its own\n" in out
    assert out.rstrip().endswith("\x1b[2K")


def test_nothing_is_shown_elsewhere_or_where_it_is_to_be_quiet(capsys, monkeypatch):
    with waiting("reading the data"):
        pass
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with waiting("reading the data", quiet=True):
        pass
    assert capsys.readouterr().out == ""
