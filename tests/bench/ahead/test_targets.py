import importlib.util
import os

import jax
import jax.numpy as jnp
import pytest

import nnjax
from nnjax.bench.ahead import targets
from nnjax.bench.ahead.launches import launches_of
from nnjax.bench.ahead.targets import Target, expect_target, numbers, spec, target
from nnjax.cases import cases

HERE = ["h100", "v5e:2x2"]


def present(name):
    try:
        expect_target(name)
    except ValueError as error:
        pytest.skip(str(error))
    return target(name)


def pulled(layer, key):
    def run(params, x):
        y, residuals = layer.fwd(params, x, key=key)
        return y, layer.bwd(residuals, y)

    return run


def as_dtype(tree, dtype):
    return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


@pytest.mark.parametrize("name", ["h101", "cpu", "v5e", "2x2", "v5e:2x2x", "", "H100"])
def test_a_name_of_no_machine_is_refused(name):
    with pytest.raises(ValueError, match=r"--compile-for takes a GPU .*h100.* or a TPU topology"):
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
    with pytest.raises(ValueError, match=r"mesh of 8 devices, and v5e:2x2 has 4"):
        four.mesh({"data": 8})


def test_a_topology_that_is_not_known_is_refused_in_words():
    present("v5e:2x2")
    with pytest.raises(ValueError, match="does not know the machine v9z:2x2"):
        target("v9z:2x2")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", HERE)
def test_a_layer_of_each_kind_compiles(name, dtype):
    at = present(name)
    for layer, shape in ((nnjax.dense(8, 8), (4, 8)), (nnjax.attention(8, 2), (2, 9, 8)), (nnjax.lstm(4, 4), (2, 5, 4))):
        params, x = as_dtype((layer.init(jax.random.key(0)), jnp.zeros(shape)), dtype)
        program = at.compile(pulled(layer, None), (params, x))
        assert program.memory_analysis().argument_size_in_bytes > 0
        if at.platform == "cuda":
            assert launches_of(program.as_text()) > 0


def test_the_program_is_that_of_the_machine_and_not_of_this_one():
    at = present("h100")
    text = at.compile(lambda x: jnp.tanh(x @ x), (jnp.ones((256, 256)),)).as_text()
    assert "gemm" in text
    assert jax.devices()[0].platform == "cpu"


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
@pytest.mark.parametrize("name", HERE)
@pytest.mark.slow
def test_every_case_compiles(name, case):
    at = present(name)
    params, x, key = case.make(0)
    for dtype in ("float32", "bfloat16"):
        at.compile(pulled(case.layer, key), as_dtype((params, x), dtype))


def test_asking_for_a_target_leaves_the_network_alone(monkeypatch):
    present("v5e:2x2")
    targets.target.cache_clear()
    target("v5e:2x2")
    assert os.environ["TPU_SKIP_MDS_QUERY"] == "1"
