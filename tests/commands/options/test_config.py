import dataclasses
import sys
import tomllib
from pathlib import Path

import pytest

from nnjax.commands.options.config import as_toml, file_named, read
from nnjax.commands.options.groups import TRAIN
from nnjax.commands.train import Train
from nnjax.train import CheckpointError

FULL = Train(
    data='a "quoted" \\ name\n\x7f é.csv', target="price", regression=True, model="mlp", hidden=(), learning_rate=0.1 + 0.2,
    optimizer_args={"b1": 1e-05, "b 2": 3.0}, schedule_args={"10": 0.5}, clip=float("inf"), grad="both", folder=Path("runs/é"),
    patience=3, seed=2**32 - 1,
)  # fmt: skip


@pytest.mark.parametrize("options", [Train(), FULL], ids=["as they are", "all kinds"])
def test_what_is_printed_is_read_back_digit_for_digit(tmp_path, options):
    text = as_toml(options, TRAIN)
    (tmp_path / "a.toml").write_text(text, encoding="utf-8")
    assert Train(**read(tmp_path / "a.toml", Train)) == options
    assert as_toml(Train(**tomllib.loads(text)), TRAIN) == text
    for group in TRAIN:
        assert (f"# {group.replace('_', ' ')}" in text) is (group != "configuration")


def test_the_command_line_comes_before_the_file(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text("lr = 1\nbatch-size = 16\nexpand = true\nhidden = [3, 4]\noptimizer_args = {b1 = 0.5}\n")
    made = Train.parse(["--config", str(file)])
    assert made == Train(learning_rate=1.0, batch_size=16, expand=True, hidden=(3, 4), optimizer_args={"b1": 0.5}, config=file)
    assert type(made.learning_rate) is float
    made = Train.parse([f"--config={file}", "--no-expand", "--hidden", "5", "--lr", "0.5"])
    assert (made.expand, made.hidden, made.learning_rate, made.batch_size) == (False, (5,), 0.5, 16)


def test_what_the_command_line_gives_comes_back_from_a_file(tmp_path, capsys):
    words = ["--epochs", "2", "--lr", "0.0123456789", "--optimizer-args", "b1", "0.85", "--data", "mine.csv", "--target", "a b"]
    Train.parse([*words, "--print-config"]).run()
    (tmp_path / "a.toml").write_text(capsys.readouterr().out, encoding="utf-8")
    found = Train.parse(["--config", str(tmp_path / "a.toml")])
    assert dataclasses.replace(found, config=None) == Train.parse(words)


def test_the_file_is_found_among_the_words():
    assert file_named([]) is None
    assert file_named(["--epochs", "3", "--config"]) is None
    assert file_named(["--config", "a", "--epochs", "3", "--config=b"]) == Path("b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("learning_rat = 3", "unknown option 'learning_rat'; did you mean learning_rate"),
        ("qqqqqqq = 3", "unknown option 'qqqqqqq'; .*--help"),
        ("config = 'b.toml'", "unknown option 'config'"),
        ("lr = 3\nlearning_rate = 3", "learning_rate is given twice"),
        ("epochs = 'three'", "epochs must be a whole number, got 'three'"),
        ("epochs = 3.5", "epochs must be a whole number, got 3.5"),
        ("epochs = true", "epochs must be a whole number, got True"),
        ("l2 = 'x'", "l2 must be a number, got 'x'"),
        ("expand = 1", "expand must be true or false, got 1"),
        ("hidden = 3", "hidden must be a list of whole numbers, got 3"),
        ("hidden = [3.5]", "hidden must be a list of whole numbers"),
        ("grad = 'hnd'", "grad must be one of hand, jax, both, got 'hnd'"),
        ("folder = 3", "folder must be a path, got 3"),
        ("optimizer_args = 3", "optimizer_args must be a table of numbers, got 3"),
        ("optimizer_args = {b1 = 'x'}", "optimizer_args must be a number"),
        ("[data]\nname = 'digits'", "data must be text"),
        ("epochs =", "not valid TOML: .*--print-config"),
    ],
)
def test_a_file_that_cannot_be_a_configuration_is_refused(tmp_path, content, message):
    (tmp_path / "a.toml").write_text(content)
    with pytest.raises(ValueError, match=message):
        Train.parse(["--config", str(tmp_path / "a.toml")])


def test_files_that_are_missing_or_of_another_kind_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist; --print-config >"):
        read(tmp_path / "a.toml", Train)
    (tmp_path / "a.toml").mkdir()
    with pytest.raises(ValueError, match="cannot be read"):
        read(tmp_path / "a.toml", Train)
    with pytest.raises(ValueError, match=r"must end in \.toml, \.yaml, \.yml"):
        read(tmp_path / "a.json", Train)


def test_yaml_is_read_where_it_can_be(tmp_path, monkeypatch):
    file = tmp_path / "a.yaml"
    file.write_text("learning_rate: 1e-3\nhidden: [3]\npatience: null\noptimizer_args: {b1: 0.5}\ndata: digits\n")
    pytest.importorskip("yaml")
    assert Train(**read(file, Train)) == Train(learning_rate=0.001, hidden=(3,), optimizer_args={"b1": 0.5})
    for content, message in (
        ("- a\n- b", "must give options by name"),
        ("a: [", "not valid YAML"),
        ("l2: x", "l2 must be a number"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=message):
            read(file, Train)
    file.write_text("")
    assert read(file, Train) == {}
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ValueError, match="YAML needs PyYAML: python -m pip install pyyaml; or write TOML"):
        read(file, Train)


def test_the_source_of_the_options_is_not_part_of_a_run():
    a, b = Train(folder=Path("a")), Train(folder=Path("b"), config=Path("c.toml"), print_config=True)
    assert a._checkpoints().configuration == b._checkpoints().configuration


def test_printing_exits_before_any_work_and_refuses_invalid_options(capsys, monkeypatch):
    monkeypatch.setattr("nnjax.commands.train.load", lambda *_: pytest.fail("data were read"))
    assert Train(print_config=True, learning_rate=0.125).run() == 0
    assert tomllib.loads(capsys.readouterr().out)["learning_rate"] == 0.125
    with pytest.raises(ValueError, match="patience must be a positive int"):
        Train(print_config=True, patience=0).run()


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_run_from_a_file_is_the_run_of_the_command_line(tmp_path, capsys):
    options = ["--epochs", "2", "--hidden", "8", "--lr", "0.0123456789", "--optimizer-args", "b1", "0.85"]
    Train.parse([*options, "--print-config"]).run()
    (tmp_path / "a.toml").write_text(capsys.readouterr().out)
    from_file = ["--config", str(tmp_path / "a.toml")]
    shown = []
    for name, words in (("a", options), ("b", from_file)):
        assert Train.parse([*words, "--folder", str(tmp_path / name)]).run() == 0
        lines = (line.split(" s  ")[0].rsplit("  ", 1)[0] for line in capsys.readouterr().out.splitlines())
        shown.append([line for line in lines if line.startswith("epoch")])
    assert len(shown[0]) == 2
    assert shown[0] == shown[1]
    with pytest.raises(CheckpointError, match="batch_size was 32, is 16"):
        Train.parse([*from_file, "--folder", str(tmp_path / "a"), "--resume", "--batch-size", "16"]).run()
