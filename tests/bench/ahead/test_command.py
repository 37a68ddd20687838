import json

import pytest

from nnjax.bench.ahead import command
from nnjax.bench.ahead.command import bench_ahead, check_ahead, expect_targets, rules_ahead
from nnjax.bench.ahead.figures import Figures
from nnjax.cli import main

GOOD = Figures(2, 1 << 21, 3, None, None, 0.5)


@pytest.fixture
def compiler(monkeypatch):
    """Replace compiling by the figures in `found`, by unit."""
    found = {}

    def compile_all(targets, units, said):
        for target in targets:
            for unit in units:
                said(target, unit, found[unit[1][0]])
        return {target: [found[unit[1][0]] for unit in units] for target in targets}

    monkeypatch.setattr(command, "compile_all", compile_all)
    monkeypatch.setattr(command, "expect_target", lambda name, who: None)
    return found


def test_a_target_named_twice_is_refused(compiler):
    with pytest.raises(ValueError, match="each target once"):
        expect_targets("bench", ["h100", "h100"])


def test_the_bench_prints_a_line_for_each_case_and_writes_all(compiler, tmp_path, capsys):
    compiler.update(dense={"hand": GOOD, "jax.grad": GOOD._replace(launches=4)}, conv={"hand": "stuck"})
    assert bench_ahead(["h100", "a100"], ["dense", "conv"], tmp_path / "f.json", tmp_path / "f.png") == 0
    text = capsys.readouterr().out
    assert "a100  dense: launches 2 (0.50)" in text
    assert "conv, hand: stuck" in text
    written = json.loads((tmp_path / "f.json").read_text())["targets"]
    assert set(written) == {"h100", "a100"}
    assert written["h100"]["dense"]["jax.grad"]["launches"] == 4
    assert (tmp_path / "f.png").exists()


def test_the_check_fails_where_a_program_does_not_compile(compiler, tmp_path, capsys):
    compiler.update(dense={"float32": GOOD, "bfloat16": GOOD})
    assert check_ahead(["h100"], ["dense"], tmp_path / "f.json") == 0
    assert "2 programs compiled for h100, 0 failed" in capsys.readouterr().out
    compiler["dense"]["bfloat16"] = "too much shared memory"
    assert check_ahead(["h100"], ["dense"], None) == 1
    text = capsys.readouterr().out
    assert "FAILED h100     dense" in text
    assert "bfloat16: too much shared memory" in text


def test_rules_stand_beside_their_definitions(compiler, tmp_path, capsys):
    compiler["m:f"] = {"1 g: rule": GOOD, "1 g: definition": GOOD._replace(launches=4), "2 h: rule": "has no derivative"}
    assert rules_ahead(["h100"], "m:f", tmp_path / "f.json") == 0
    text = capsys.readouterr().out
    assert "1 g: launches 2 (0.50)" in text
    assert "2 h: has no derivative" in text
    assert set(json.loads((tmp_path / "f.json").read_text())["targets"]["h100"]) == {"1 g", "2 h"}
    compiler["m:f"] = {}
    assert rules_ahead(["h100"], "m:f", None) == 1
    assert "no custom_vjp" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("bench --compile-for h101", "must be a GPU"),
        ("check --compile-for h101", "must be a GPU"),
        ("bench --compile-for h100 --peers", "--peers is for what is measured"),
        ("bench --compile-for h100 --only nothing-of-that-name", "nothing-of-that-name"),
        ("check --compile-for h100 --mutants", "--mutants is for .*--compile-for"),
        ("check --compile-for h100 --only nothing-of-that-name", "nothing-of-that-name"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(monkeypatch, capsys, words, said):
    if "h101" not in words:
        monkeypatch.setattr(command, "expect_target", lambda name, who: None)
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
