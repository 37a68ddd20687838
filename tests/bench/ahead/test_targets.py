import importlib.util
import os
import subprocess
import sys

import jax
import pytest

from nnjax.bench.ahead.compiling import compile_all
from nnjax.bench.ahead.figures import Figures
from nnjax.bench.ahead.targets import Target, expect_target, numbers, spec, target
from nnjax.cases import cases

HERE = ["h100", "v5e:2x2"]


def present(name):
    try:
        expect_target(name)
    except ValueError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", ["h101", "cpu", "v5e", "2x2", "v5e:2x2x", "", "H100"])
def test_an_unknown_machine_is_refused(name):
    with pytest.raises(ValueError, match=r"--compile-for must be a GPU .*h100.* or a TPU topology"):
        expect_target(name)


@pytest.mark.parametrize(("name", "extra"), [("h200", "h100"), ("v5p:2x2x1", "tpu-compiler")])
def test_a_compiler_that_is_missing_is_named_with_the_command_that_installs_it(monkeypatch, name, extra):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf"check: .*{name}.*not installed: python -m pip install 'nnjax\[{extra}\]'"):
        expect_target(name, "check")


def test_a_card_is_written_as_its_compiler_reads_it():
    text = spec("h100")
    assert text.count("{") == text.count("}") == 3
    assert "core_count: 132" in text
    assert "cuda_compute_capability { major: 9 minor: 0 }" in text
    assert 'device_description_str: "NVIDIA H100 80GB HBM3"' in text
    assert {"h100", "h200", "a100"} <= set(numbers()["cards"])
    assert numbers()["source"].startswith("https://")


def test_a_mesh_has_as_many_places_as_the_machine():
    four = Target("v5e:2x2", "tpu", tuple(jax.devices("cpu")[:1] * 4))
    assert four.mesh({"data": 2, "model": 2}).shape == {"data": 2, "model": 2}
    with pytest.raises(ValueError, match=r"mesh has 8 devices, but v5e:2x2 has 4"):
        four.mesh({"data": 8})


def python(code):
    """The output of code in a new process without a chosen platform: here JAX has started already, without the compilers."""
    env = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_an_unknown_topology_is_refused_with_a_sentence():
    present("v5e:2x2")
    with pytest.raises(ValueError, match="does not know the machine v9z:2x2"):
        target("v9z:2x2")


def test_jax_started_without_the_compiler_is_an_error():
    present("h100")
    code = (
        "import jax, nnjax.bench.ahead.targets as t\njax.devices()\n"
        "try: t.target('h100')\nexcept ValueError as error: print(error)"
    )
    assert "JAX_PLATFORMS=cpu" in python(code)


def test_the_program_is_that_of_the_machine_and_not_of_this_one():
    present("h100")
    code = (
        "import jax, jax.numpy as jnp\nfrom nnjax.bench.ahead.targets import target\n"
        "print(target('h100').compile(lambda x: jnp.tanh(x @ x), (jnp.ones((256, 256)),)).as_text())\n"
        "print('here', jax.devices()[0].platform)"
    )
    said = python(code)
    assert "gemm" in said
    assert "here cpu" in said


@pytest.mark.parametrize("name", HERE)
def test_a_few_cases_compile(name):
    present(name)
    units = [("check", (case, "float32", "bfloat16")) for case in ("dense", "conv", "attention, grouped, rope, masked", "lstm")]
    for unit, found in zip(units, compile_all([name], units, lambda *_: None)[name]):
        assert [found[dtype] for dtype in unit[1][1:] if not isinstance(found.get(dtype), Figures)] == [], unit
        assert all(found[dtype].launches for dtype in unit[1][1:]) == (name == "h100")


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("part", range(7))
@pytest.mark.slow
@pytest.mark.in_turn
def test_every_case_compiles(name, part):
    present(name)
    units = [("check", (case.name, "float32", "bfloat16")) for case in cases()[part::7]]
    failed = {}
    for (_, (case, *_)), found in zip(units, compile_all([name], units, lambda *_: None)[name]):
        failed |= {(case, dtype): why for dtype, why in found.items() if isinstance(why, str)}
    assert failed == {}
