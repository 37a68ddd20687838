import json
import subprocess
import sys

import jax
import pytest

from nnjax.commands import check as check_command
from nnjax.commands.check import Check, sizes_of
from nnjax.distributed import sharded


@pytest.mark.in_turn
def test_cases_over_a_mesh_are_checked_and_written(capsys, tmp_path):
    assert Check(mesh="data=2,model=2", only="row_dense", json=tmp_path / "check.json").run() == 0
    assert "ok     row_dense " in capsys.readouterr().out
    found = json.loads((tmp_path / "check.json").read_text())
    assert found["ok"]
    assert {row["case"] for row in found["rows"]} == {"row_dense on data=2, model=2", "apply of row_dense on data=2, model=2"}
    assert {row["dtype"] for row in found["rows"]} == {"float64", "float32", "bfloat16", "float16"}


@pytest.mark.in_turn
def test_every_device_must_draw_its_own_numbers(capsys, monkeypatch):
    assert Check(mesh="data=2,shard=2", only="dropout").run() == 0
    monkeypatch.setattr("nnjax.distributed.mesh.jax.random.fold_in", lambda key, i: key)
    assert Check(mesh="data=2,shard=2", only="dropout").run() == 1
    assert "devices 0 and 1 along mesh axes data and shard draw the same random numbers" in capsys.readouterr().out


@pytest.mark.in_turn
def test_a_fault_exits_with_1(capsys, monkeypatch):
    def planted(mesh):
        for case in right(mesh):
            bwd = case.layer.bwd
            wrong = case.layer._replace(bwd=lambda residuals, ct, bwd=bwd: (bwd(residuals, ct)[0], 2 * bwd(residuals, ct)[1]))
            yield case._replace(layer=wrong)

    right = check_command.distributed_cases
    monkeypatch.setattr(check_command, "distributed_cases", lambda mesh: list(planted(mesh)))
    assert Check(mesh="model=2", only="column_dense").run() == 1
    assert "larger by 2, the size of mesh axis model: summed twice?" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_gradient_that_is_summed_inside_and_outside_is_named(capsys, monkeypatch):
    def of_what_is_cut(part):
        return jax.tree.map(lambda spec: frozenset(sharded._axes(spec)), part.specs, is_leaf=sharded._is_spec)

    monkeypatch.setattr(sharded, "_summed", of_what_is_cut)
    assert Check(mesh="shard=4", only="fully_sharded inside fully_sharded").run() == 1
    assert "larger by 4, the size of mesh axis shard: summed twice?" in capsys.readouterr().out


def test_without_a_mesh_it_is_the_plain_command(capsys):
    assert Check(only="dropout without").run() == 0
    assert "1 cases, 1 seed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"mesh": "data"}, r"--mesh .*each axis once.* got 'data'"),
        ({"mesh": "data=2,data=4"}, r"each axis once.*got 'data=2,data=4'"),
        ({"mesh": "data=0"}, r"got 'data=0'"),
        ({"mesh": "data=2;model=2"}, r"got 'data=2;model=2'"),
        ({"mesh": "rows=2"}, r"unknown axis of a mesh 'rows'"),
        ({"mesh": "data=16"}, r"make_mesh: data=16 needs 16 devices, got 8"),
        ({"mesh": "data=2", "mutants": True}, r"leave out --mutants or --mesh"),
        ({"mesh": "data=2", "only": "row_dnse"}, r"unknown case 'row_dnse'"),
    ],
)
def test_bad_input_is_one_sentence(how, message):
    with pytest.raises(ValueError, match=message):
        Check(**how).run()


def test_sizes():
    assert sizes_of("data=4,model=2") == {"data": 4, "model": 2}


@pytest.mark.in_turn
def test_a_cpu_simulates_the_devices_by_itself():
    code = "from nnjax.cli import main; main(['check', '--mesh', 'data=8', '--only', 'dropout', '--device', 'cpu'])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "ok     dropout " in found.stdout
