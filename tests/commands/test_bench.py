import json

import jax
import pytest

from nnjax.bench.table import Entry, _mlp, _nielsen
from nnjax.commands import bench as command
from nnjax.commands.bench import Bench


def hopeless(entry: Entry) -> Entry:
    return entry._replace(name="small hopeless", time=0.0, temp=0.0)


@pytest.fixture
def small(monkeypatch):
    table = [_mlp([6, 5, 3], 4)._replace(name="small mlp"), _nielsen([6, 5, 3], 4)._replace(name="small nielsen")]
    monkeypatch.setattr(command, "entries", lambda: [*table, hopeless(_mlp([40, 30, 30], 4))])


def test_the_figures_are_printed_and_written(capsys, tmp_path, small):
    assert Bench(only="small", seconds=0.05, json=tmp_path / "bench.json").run() == 0
    out = capsys.readouterr().out
    for word in ("small mlp", "small nielsen", "geometric mean of 3 cases", "targets met: ", "checkpoint"):
        assert word in out
    found = json.loads((tmp_path / "bench.json").read_text())
    assert set(found["cases"]) == {"small mlp", "small nielsen", "small hopeless"}
    one = found["cases"]["small mlp"]
    assert one["flops_ratio"] < 1.05
    assert set(one["time_ratios"]) == {"jax.grad", "checkpoint"}
    assert one["time_target"] == 1.02
    assert found["jax"] == jax.__version__
    assert found["device"]
    assert found["date"]


@pytest.mark.slow
def test_peers_and_a_picture_on_request(capsys, tmp_path, small):
    assert Bench(only="small mlp", seconds=0.05, peers=True, plot=tmp_path / "bench.png").run() == 0
    assert "flax" in capsys.readouterr().out
    assert (tmp_path / "bench.png").read_bytes()[1:4] == b"PNG"


def test_what_cannot_be_done_is_refused_before_anything_is_measured(small, tmp_path):
    with pytest.raises(ValueError, match=r"unknown bench case 'mpl': known are book, small hopeless, small mlp"):
        Bench(only="mpl").run()
    with pytest.raises(ValueError, match=r"bench: no device of platform 'tpu' here; present are .*cpu"):
        Bench(device="tpu").run()
    with pytest.raises(ValueError, match=r"bench: seconds must be positive, got 0"):
        Bench(seconds=0).run()
    with pytest.raises(ValueError, match="folder"):
        Bench(json=tmp_path / "none" / "bench.json").run()


def test_a_small_case_within_the_scatter_of_itself_has_met_its_time(small):
    entry, c, _ = Bench(seconds=0.05)._measured(command.entries()[2], {})
    assert c.milliseconds < 1
    assert not entry.met(c._replace(time_ratios={"jax.grad": c.spread[1] + 0.1}))
    assert entry.met(c._replace(time_ratios={"jax.grad": c.spread[1]}, milliseconds=0.9))
    assert not entry.met(c._replace(time_ratios={"jax.grad": c.spread[1]}, milliseconds=1.1))
    big = c._replace(temp_bytes={"hand": 1 << 30}, temp_ratio=0.5, time_ratios={"jax.grad": 0.0})
    assert not entry.met(big)
    assert entry._replace(temp=0.5).met(big)


def test_the_rules_of_a_function_are_measured(capsys, monkeypatch, tmp_path):
    text = "import jax, jax.numpy as jnp\n\ndef mine():\n    return jax.nn.relu(jnp.ones(3))\n\ndef none():\n    pass\n"
    (tmp_path / "a_bench.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert Bench("a_bench:mine", seconds=0.05, json=tmp_path / "rules.json").run() == 0
    out = capsys.readouterr().out
    for word in ("relu (jax/", "residual bytes", "milliseconds"):
        assert word in out
    (rule,) = json.loads((tmp_path / "rules.json").read_text())["rules"]
    assert rule["rule"]["milliseconds"] > 0
    assert Bench("a_bench:none", seconds=0.05).run() == 1
    for wrong, word in (
        (Bench("a_bench"), "expected module:function"),
        (Bench("a_bench:mine", only="mlp"), "--only is for nnjax's own cases"),
        (Bench("a_bench:mine", seconds=0), "seconds must be positive"),
    ):
        with pytest.raises(ValueError, match=word):
            wrong.run()
