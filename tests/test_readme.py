"""Every Python block of the README runs, one after another, as a reader would run them; and it has its two commands."""

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def test_every_block_runs(capsys):
    assert len(BLOCKS) >= 5
    namespace: dict = {}
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"README.md, block {number + 1}", "exec"), namespace)
    out = capsys.readouterr().out
    assert "ok: " in out
    assert "larger by 1.001" in out
    assert float(out.splitlines()[-1]) > 0.9


def test_the_two_commands_are_in_it_word_for_word():
    assert "\n    python -m pip install -e '.[train]' && nnjax train\n" in README
    assert "\n    python -m pip install -e '.[test]' && python -m pytest\n" in README


def test_no_block_is_left_out():
    assert README.count("```") == 2 * len(BLOCKS)
