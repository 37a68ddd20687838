"""The guides of the site: every command is one, and every block runs, one after another in a folder of its own."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import tyro

from nnjax.cli import COMMANDS, _loaded

ROOT = Path(__file__).parents[1]
GUIDES = sorted((ROOT / "notebooks" / "site" / "guides").glob("*.md"))
FENCE = re.compile(r"^```(\w+) ?(\w*)\n(.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    """when: "elsewhere" for what needs another machine, data from the network, or hours; "" for all else."""

    language: str
    when: str
    text: str


def blocks(text: str) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(text)]


def commands(text: str) -> list[list[str]]:
    """The words of every command of a shell block, without what is redirected."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    found = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [words[: words.index(">")] if ">" in words else words for words in found]


def expect_command(words: list[str], extras: set[str]) -> None:
    """Fail unless these words are a command whose options are known: nothing is run."""
    if words[0] == "nnjax":
        assert words[1] in COMMANDS, words
        loaded = _loaded(words[1])
        parse = getattr(loaded, "parse", None)
        args = [a for a in words[2:] if a != "--print-config"]
        if "--config" not in args:  # whose file is not there
            parse(args) if parse else tyro.cli(loaded, args=args)
    elif words[1:4] == ["-m", "pip", "install"]:
        assert set(re.search(r"\[(.*)\]", words[-1])[1].split(",")) <= extras, words
    else:
        assert words[:3] == ["python", "-m", "pytest"], words


PAGES = {path.stem: path.read_text() for path in GUIDES}
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def test_every_block_is_one_of_a_kind_that_is_tested():
    assert len(PAGES) >= 6
    for name, text in PAGES.items():
        assert text.count("```") == 2 * len(blocks(text)), name
        assert {b.language for b in blocks(text)} <= {"python", "sh"}, name
        assert {b.when for b in blocks(text)} <= {"", "elsewhere"}, name
        assert not [b for b in blocks(text) if b.language == "python" and b.when == "elsewhere"], name


@pytest.mark.parametrize("name", PAGES)
def test_every_command_is_one(name):
    for block in blocks(PAGES[name]):
        if block.language == "sh":
            for words in commands(block.text):
                expect_command(words, EXTRAS)


def test_a_command_that_is_none_is_seen():
    expect_command(["nnjax", "train", "--epochs", "3"], EXTRAS)
    with pytest.raises(SystemExit):
        expect_command(["nnjax", "train", "--epoch-count", "3"], EXTRAS)
    with pytest.raises(AssertionError):
        expect_command(["nnjax", "trian"], EXTRAS)
    with pytest.raises(AssertionError):
        expect_command(["python", "-m", "pip", "install", "-e", ".[cuda14]"], EXTRAS)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.in_turn
def test_it_runs_block_by_block(name, run_blocks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_blocks(name, [(b.language, b.text) for b in blocks(PAGES[name]) if b.when != "elsewhere"])
