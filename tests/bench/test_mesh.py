import builtins
import json
import subprocess
import sys

import jax
import pytest

from nnjax.bench import mesh
from nnjax.bench.links import Links
from nnjax.bench.minimum import Sizes
from nnjax.commands.bench import Bench

SMALL = Sizes(vocab=32, context=16, layers=2, heads=8, width=32, batch=16)
GRADIENTS = 4 * (2 * (12 * 32**2 + 13 * 32) + 32 * 32 + 16 * 32 + 2 * 32)


@pytest.mark.slow
@pytest.mark.in_turn
def test_it_prints_writes_and_draws_what_is_sent_and_predicted(capsys, tmp_path):
    to, plot = tmp_path / "mesh.json", tmp_path / "mesh.png"
    assert mesh.run(["data=8", "data=1"], Links(), None, to, plot, SMALL) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    for words in ("data=8: ", "all-reduce", f"of {GRADIENTS:,}", "nothing", "50 GB/s", "weak scaling", "strong scaling",
                  "data=1: ", "and nothing is sent", "4,096", "data=4096"):  # fmt: skip
        assert words in out
    found = json.loads(to.read_text())
    assert (found["jax"], found["gpt"], found["links"]) == (jax.__version__, SMALL._asdict(), Links()._asdict())
    assert found["date"]
    assert found["device"]
    first, alone = found["meshes"]
    assert sum(m["sent"] * m["bytes"] for m in first["messages"]) == GRADIENTS + 8
    assert sum(m["minimum"] * m["bytes"] for m in first["messages"]) == GRADIENTS + 8
    assert sum(m["sent"] for m in first["messages"]) == sum(m["minimum"] for m in first["messages"]) == 2
    assert first["bytes_on_a_device"] == 3 * GRADIENTS + 2 * 2 * 16 * 4
    assert alone["messages"] == []
    assert [(p["scaling"], p["devices"]) for p in first["predictions"]] == [
        (scaling, n) for scaling in ("weak", "strong") for n in (8, 64, 512, 4096)
    ]
    assert plot.read_bytes()[1:4] == b"PNG"


def test_what_is_above_the_minimum_is_reported(capsys):
    key = (("shard",), "all-gather")
    mesh._print_messages(mesh.Found({"shard": 8}, {(*key, 10): 3, (*key, 5): 2}, {(*key, 10): 3}, 7, []))
    out = capsys.readouterr().out
    assert "+2 messages, +10 bytes" in out
    assert "2 of 5" in out


@pytest.mark.parametrize(("bench", "message"), [
    (Bench(mesh=("rows=8",)), r"bench: --mesh .*sizes, got 'rows=8'"),
    (Bench(mesh=("data=2,data=4",)), r"bench: --mesh .* each axis once"),
    (Bench(mesh=("data=64",)), r"make_mesh: data=64 needs 64 devices, got 8"),
    (Bench(mesh=("data=5",)), r"the batch must be a multiple of 5"),
    (Bench(mesh=("model=3",)), r"must be a multiple of 3"),
    (Bench(mesh=("data=8",), bandwidth=0.0), r"bench: bandwidth must be a positive number, got 0.0; 5e\+10 is usual"),
    (Bench(mesh=("data=8",), only="mlp"), r"bench: --only is for what is measured, --mesh for what is counted"),
    (Bench(mesh=("data=8",), peers=True), r"bench: --peers is for what is measured"),
    (Bench(mesh=("data=8",), device="tpu"), r"bench: no device of platform 'tpu'"),
])  # fmt: skip
def test_bad_input_is_one_sentence(bench, message):
    jax.devices()  # which are as many from here on
    with pytest.raises(ValueError, match=message):
        bench.run()


def test_without_matplotlib_the_remedy_is_named_before_anything_is_compiled(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **how):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **how)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(mesh, "measured", None)
    with pytest.raises(ValueError, match=r"bench: --plot needs matplotlib: python -m pip install 'nnjax\[notebooks\]'"):
        mesh.run(["data=8"], Links(), None, None, tmp_path / "mesh.png", SMALL)


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_command_simulates_the_devices_that_it_needs():
    code = "from nnjax.cli import main; main(['bench', '--mesh', 'shard=16', '--bandwidth', '1e11'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    assert "100 GB/s" in done.stdout
    assert "48 of 50,384,896" in done.stdout
    assert "messages," not in done.stdout  # nothing above the minimum
