"""The step of a small GPT, compiled for the chips of a TPU that is not here; without its compiler, everything else."""

import importlib.util
import json
import subprocess
import sys

import pytest

from nnjax.bench.ahead import pods
from nnjax.bench.ahead.differences import Sum, Sums
from nnjax.bench.minimum import Sizes
from nnjax.commands.bench import Bench

SMALL = Sizes(vocab=32, context=16, layers=2, heads=8, width=32, batch=16)
libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="no libtpu: python -m pip install libtpu")
ALONG: tuple[str, ...] = ("shard",)
KEY = (ALONG, "all-gather", 3200)
GATHERED: Sums = {KEY[:2]: Sum(2, 6400, 1600)}
POD = pods.Pod(
    mesh={"shard": 8}, batch=64, counts={"minimum": {KEY: 2}, "asked": {KEY: 2}, "simulated": {KEY: 2}, "compiled": {}},
    sums={"minimum": GATHERED, "asked": GATHERED, "simulated": GATHERED,
          "compiled": {(ALONG, "all-reduce"): Sum(2, 6400, 1600)}},
    state=2_000_000, whole=16_000_000, temporary=3_000_000, seconds=12.0, uneven=[100],
)  # fmt: skip


def test_the_batch_grows_to_one_sequence_for_each_device_along_data_and_shard():
    for mesh, batch in (
        ({"data": 256}, 256),
        ({"data": 4, "shard": 32}, 128),
        ({"data": 32, "model": 8}, 64),
        ({"data": 24}, 72),
    ):
        assert pods.batch_of(SMALL._replace(batch=64), mesh) == batch


def test_the_table_compares_the_three_and_names_the_differences(capsys):
    pods.show(POD)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    for words in ("shard=8: a batch of 64 sequences", "2.0 MB of parameters and moments (1/8 of all is 2.0 MB); 3.0 MB",
                  "minimum", "simulated", "compiled", "2 of 6,400", "simulated: the minimum, in number and bytes",
                  "compiled: shard all-gather: exchanged: all as all-reduces",
                  "a share of 100 numbers does not fill rows of 128"):  # fmt: skip
        assert words in out


def test_the_record_has_every_message_and_the_sentences():
    found = pods.record(POD)
    sent = {"minimum": 2, "asked": 2, "simulated": 2, "compiled": 0}
    assert found["messages"] == [{"axes": ("shard",), "kind": "all-gather", "bytes": 3200, **sent}]
    assert found["handed_on_in_rings"] == {"minimum": 5600, "asked": 5600, "simulated": 5600, "compiled": 11200}
    assert found["differences"] == pods.notes(POD)
    assert (found["state_bytes_a_chip"], found["state_bytes"]) == (2_000_000, 16_000_000)


@libtpu
def test_one_target_at_a_time():
    message = r"bench: --mesh with --compile-for takes one TPU topology, such as v5e:16x16, got v5e:2x2 v5e:2x4; name one"
    with pytest.raises(ValueError, match=message):
        Bench(mesh=("data=8",), compile_for=("v5e:2x2", "v5e:2x4")).run()


@libtpu
def test_a_mesh_of_another_size_is_refused_before_anything_is_compiled(monkeypatch):
    monkeypatch.setattr(pods, "measured", None)
    with pytest.raises(ValueError, match=r"bench: .* 8 devices, .*v5e:2x2 has 4"):
        pods.run(["data=8"], ["v5e:2x2"], None, SMALL)


@pytest.mark.parametrize("option", ["plot", "device"])
def test_what_needs_a_device_or_predicts_is_refused(option, tmp_path):
    given = {"plot": tmp_path / "p.png", "device": "cpu"}[option]
    with pytest.raises(ValueError, match=rf"bench: --{option} is for .*--compile-for"):
        Bench(mesh=("data=8",), compile_for=("v5e:2x4",), **{option: given})._run_mesh()


@libtpu
@pytest.mark.slow
@pytest.mark.in_turn
def test_a_tpu_sends_the_minimum_over_data_and_model_and_keeps_one_nth_over_shard(tmp_path):
    to = tmp_path / "pods.json"
    code = f"""
from pathlib import Path
from nnjax.bench.ahead import pods
from nnjax.bench.minimum import Sizes
pods.run(["data=4,model=2", "shard=8"], ["v5e:2x4"], Path({str(to)!r}), Sizes(*{tuple(SMALL)}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    both, shard = json.loads(to.read_text())["meshes"]
    for who in ("minimum", "simulated", "compiled"):
        assert sum(m["bytes"] * m[who] for m in both["messages"]) == 55_944 + 82_688
    assert both["differences"] == {who: ["the minimum, in number and bytes"] for who in ("simulated", "compiled")}
    gathers = [m for m in shard["messages"] if m["kind"] == "all-gather"]
    assert sum(m["compiled"] for m in gathers) == sum(m["minimum"] for m in gathers) == 5
    assert "numbers, zeros that fill the shares up to rows of 128" in " ".join(shard["differences"]["compiled"])
    assert not any("not explained" in line for line in shard["differences"]["compiled"])
    assert shard["state_bytes_a_chip"] < both["state_bytes_a_chip"] / 2
