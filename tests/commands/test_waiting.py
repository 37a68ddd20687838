import fcntl
import os
import pty
import re
import struct
import sys
import termios
import time

from nnjax.commands.waiting import waiting, wrapped


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


def test_nothing_is_shown_elsewhere_or_with_quiet(capsys, monkeypatch):
    with waiting("reading the data"):
        pass
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with waiting("reading the data", quiet=True):
        pass
    assert capsys.readouterr().out == ""


def test_lines_wrap_between_words_on_a_terminal_and_stay_elsewhere(tmp_path):
    words = "note: " + "features reach far " * 8 + "/a/path/that/is/longer/than/" + "x" * 60 + "\nsaving in run"
    with (tmp_path / "file").open("w") as file:
        assert wrapped(words, file) == words
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    with os.fdopen(theirs, "w") as terminal:
        lines = wrapped(words, terminal).split("\n")
    os.close(ours)
    assert " ".join(line.strip() for line in lines).split() == words.split()  # no word is lost or cut
    assert all(len(line) <= 80 or " " not in line.strip() for line in lines)
    assert lines[-1] == "saving in run"
