import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nnjax.commands.options.groups import ALIASES, REST, TRAIN, docs, grouped, parse
from nnjax.commands.train import Train


@dataclass
class Bake:
    """Bake a cake."""

    sugar: float = 0.5
    """How much of it,
    in pounds."""
    tins: tuple[int, ...] = (20,)
    """Their sizes."""
    spices: dict[str, float] = field(default_factory=dict)
    fan: bool = False
    """Whether the air moves."""
    book: Path | None = None
    """The recipe."""


GROUPS = {"dough": ("sugar", "spices"), "the_oven": ("fan",)}


def test_every_option_of_train_is_in_one_group_and_none_is_forgotten():
    listed = [name for names in TRAIN.values() for name in names]
    assert sorted(listed) == sorted(f.name for f in dataclasses.fields(Train))
    assert REST not in grouped(Train, TRAIN)
    assert set(ALIASES) <= set(listed)
    assert set(docs(Train)) == set(listed)


def test_what_no_group_names_is_in_the_last():
    assert grouped(Bake, GROUPS) == {"dough": ["sugar", "spices"], "the_oven": ["fan"], REST: ["tins", "book"]}
    assert docs(Bake)["sugar"] == "How much of it, in pounds."


def test_words_become_the_command_whatever_their_order():
    words = ["--tins", "18", "20", "--fan", "--spices", "ginger", "0.1", "--sugar", "0.25", "--book", "a.txt"]
    assert parse(Bake(), GROUPS, "bake", words) == Bake(0.25, (18, 20), {"ginger": 0.1}, True, Path("a.txt"))
    assert parse(Bake(), GROUPS, "bake", []) == Bake()
    base = Bake(0.1, fan=True, spices={"mace": 1.0})
    assert parse(base, GROUPS, "bake", ["--no-fan"]) == Bake(0.1, spices={"mace": 1.0})


def test_the_help_has_a_box_for_each_group_and_fits_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        Train.parse(["--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    boxes = [line.split()[0] for line, below in zip(lines, lines[1:]) if below.startswith(" ---")]
    assert boxes == ["options", *(name.replace("_", "-") for name in TRAIN)]
    text = " ".join(" ".join(lines).split())
    assert "--lr FLOAT, --learning-rate FLOAT" in text
    assert "None" not in text
    for words in docs(Train).values():
        assert words.split(".")[0].split(",")[0][:30] in text


@pytest.mark.parametrize("name", ["--lr", "--learning-rate", "--learning_rate"])
def test_the_learning_rate_has_a_short_name(name):
    assert Train.parse([name, "0.5"]) == Train(learning_rate=0.5)


def test_a_mistyped_option_gets_the_nearest_as_a_hint(capsys):
    with pytest.raises(SystemExit) as ended:
        Train.parse(["--leraning-rate", "3"])
    assert ended.value.code == 2
    assert "--learning-rate" in capsys.readouterr().err
