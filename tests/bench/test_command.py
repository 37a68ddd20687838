import json

import pytest

from nnjax.bench import command
from nnjax.bench.command import Bench


def test_the_figures_are_printed_and_written(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(
        command, "CASES", {"small mlp": command._mlp([6, 5, 3], 4), "small nielsen": command._nielsen([6, 5, 3], 4)}
    )
    monkeypatch.setattr(command, "compare", lambda *args: real(*args, budget_seconds=0.05))
    assert Bench(only="small", json=tmp_path / "bench.json").run() == 0
    assert "small mlp" in capsys.readouterr().out
    found = json.loads((tmp_path / "bench.json").read_text())
    assert set(found["cases"]) == {"small mlp", "small nielsen"}
    assert found["cases"]["small mlp"]["flops_ratio"] < 1.05
    assert found["jax"]


real = command.compare


def test_an_unknown_case_is_refused():
    with pytest.raises(ValueError, match=r"unknown bench case 'mpl': known are"):
        Bench(only="mpl").run()
