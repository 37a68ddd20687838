import json

import jax
import pytest

from nnjax.bench.kinds import MAIN
from nnjax.bench.peaks import Peaks
from nnjax.bench.peers import Flags
from nnjax.bench.rows.entry import Entry
from nnjax.bench.rows.models import book_network, plain_mlp
from nnjax.commands import bench as command
from nnjax.commands.bench import Bench
from nnjax.commands.budget import Budget


def hopeless(entry: Entry) -> Entry:
    return entry._replace(name="small hopeless", time=0.0, temp=0.0)


@pytest.fixture
def small(monkeypatch):
    table = [plain_mlp([6, 5, 3], 4)._replace(name="small mlp"), book_network([6, 5, 3], 4)._replace(name="small nielsen")]
    monkeypatch.setattr(command, "entries", lambda platform="cpu": [*table, hopeless(plain_mlp([40, 30, 30], 4))])
    monkeypatch.setattr(command, "peaks", lambda device, asked: Peaks({kind.label: 1e12 for kind in asked}, 1e10))


@pytest.mark.in_turn
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
    assert one["share_of_peaks"]["products"] == pytest.approx(one["product_flops"] / one["milliseconds"] / 1e9)
    assert one["share_of_peaks"]["memory"] == pytest.approx(one["least_bytes"] / one["milliseconds"] / 1e7)
    assert found["peaks"] == {"products": {"float32 default": 1e12}, "memory": 1e10}
    assert "not_reached" not in found


@pytest.mark.slow
@pytest.mark.in_turn
def test_peers_and_a_picture_on_request(capsys, tmp_path, small):
    assert Bench(only="small mlp", seconds=0.05, peers=True, plot=tmp_path / "bench.png").run() == 0
    assert "flax" in capsys.readouterr().out
    assert (tmp_path / "bench.png").read_bytes()[1:4] == b"PNG"


def test_what_cannot_be_done_is_refused_before_anything_is_measured(small, tmp_path):
    with pytest.raises(ValueError, match=r"unknown bench case 'mpl': known are book, small hopeless, small mlp"):
        Bench(only="mpl").run()
    with pytest.raises(ValueError, match=r"bench: no device of platform 'tpu' .*cpu"):
        Bench(device="tpu").run()
    with pytest.raises(ValueError, match=r"bench: seconds must be positive, got 0"):
        Bench(seconds=0).run()
    with pytest.raises(ValueError, match="folder"):
        Bench(json=tmp_path / "none" / "bench.json").run()
    for wrong, message in (
        (Bench(budget=-1.0), "bench: budget must be a positive number of seconds, got -1.0"),
        (Bench(budget=60.0, mesh=("data=8",)), "bench: --budget .*--mesh"),
        (Bench("a:b", budget=60.0), "bench: --budget .*module:function"),
        (Bench("a:b", dtype=("bfloat16",)), "bench: --dtype is for nnjax's own cases, not for a:b"),
        (Bench(mesh=("data=8",), precision=("highest",)), "bench: --precision is for what is measured, --mesh for"),
        (Bench(dtype=(), device="cpu"), "bench: .*got none; name a --dtype"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong.run()


def test_a_small_case_within_the_scatter_of_itself_has_met_its_time(small):
    measured = []
    Bench(seconds=0.05)._measured(command.entries()[2], MAIN, {}, measured, Budget(None), None)
    ((entry, c, _, share),) = measured
    assert share is None
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


class Clock:
    """A clock that only cases move, by their duration."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def timed(monkeypatch, small):
    """Every case takes ten seconds of the clock; the list holds the measured ones."""
    clock, cases = Clock(), []
    real = command.compare

    def compare(case, hand, references, args, seconds, least):
        clock.now += 10
        cases.append((case, list(references), jax.tree.leaves(args)[0].dtype.name, least))
        if "nielsen" in case and "bfloat16" in case:
            raise FloatingPointError("no such luck")
        return real(case, hand, references, args, 0.01, least)

    monkeypatch.setattr(command, "compare", compare)
    monkeypatch.setattr(command, "Budget", lambda seconds: Budget(seconds, clock))
    monkeypatch.setattr(command, "epoch_seconds", lambda *sizes: (1.0, 2.0))
    return cases


@pytest.mark.in_turn
def test_within_a_budget_the_file_lists_every_case_after_each(capsys, monkeypatch, tmp_path, timed):
    written, real = [], command.write_json

    def write(file, found):
        real(file, found)
        written.append(json.loads(file.read_text()))

    monkeypatch.setattr(command, "write_json", write)
    run = Bench(budget=45.0, dtype=("float32", "bfloat16"), json=tmp_path / "bench.json", device="cpu")
    assert run.run() == 0
    named = ["small mlp", "small nielsen", "small hopeless"]
    every = {*named, *(f"{name}, bfloat16" for name in named), "book [784, 30, 10]", "book [784, 100, 10]"}
    assert [case for case, *_ in timed] == [*named, "small mlp, bfloat16"]
    assert {least for *_, least in timed} == {2}
    assert timed[0][1:3] == (["jax.grad"], "float32")
    assert timed[3][2] == "bfloat16"
    for found in written:
        assert {*found["cases"], *found["not_reached"], *found["failed"]} == every
    assert not written[-1]["complete"]
    assert list(tmp_path.iterdir()) == [tmp_path / "bench.json"]
    assert written[-1]["cases"]["small mlp, bfloat16"]["dtype"] == "bfloat16"
    assert "not reached, 4: small nielsen, bfloat16; " in capsys.readouterr().out


@pytest.mark.in_turn
def test_an_error_within_a_budget_affects_only_its_case(capsys, tmp_path, timed):
    run = Bench(budget=1e6, dtype=("bfloat16",), json=tmp_path / "bench.json", device="cpu")
    assert run.run() == 1
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["failed"] == {"small nielsen, bfloat16": "FloatingPointError: no such luck"}
    assert found["complete"]
    assert set(found["cases"]) == {"small mlp, bfloat16", "small hopeless, bfloat16", *command.BOOKS}
    out = capsys.readouterr().out
    assert "FAILED small nielsen, bfloat16: FloatingPointError: no such luck" in out
    assert "every case was reached" in out
    with pytest.raises(FloatingPointError):
        Bench(dtype=("bfloat16",), device="cpu").run()


@pytest.mark.in_turn
def test_other_libraries_are_measured_after_the_case_itself(capsys, monkeypatch, tmp_path, timed):
    settings = Flags("1.2", "eager", 2, "highest", "its own", "SGD")
    monkeypatch.setattr(command, "flags", lambda names: dict.fromkeys(names, settings))
    table = [entry._replace(peers=lambda seconds: {"other": 0.5}) for entry in command.entries()[:1]]
    monkeypatch.setattr(command, "entries", lambda platform="cpu": table)
    Bench(only="small", peers=True, precision=("highest", "default"), json=tmp_path / "bench.json", device="cpu").run()
    assert [case for case, *_ in timed] == ["small mlp", "small mlp, highest"]
    written = json.loads((tmp_path / "bench.json").read_text())
    cases = written["cases"]
    assert cases["small mlp"]["peer_ratios"] == {"other": 0.5}
    assert written["peers"] == {"other": settings._asdict()}
    assert "other 1.2: eager, 2 threads, matmul highest, its own, SGD\ngeometric mean" in capsys.readouterr().out
    assert cases["small mlp, highest"]["peer_ratios"] == {}
