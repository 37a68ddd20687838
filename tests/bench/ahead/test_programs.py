import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.bench.ahead.programs import KINDS, of_bench, of_check, of_function


@pytest.mark.in_turn
def test_a_bench_case_is_its_hand_written_program_and_its_references():
    programs = of_bench("cuda", "softmax 4096 x 768")
    assert list(programs) == ["hand", "jax.grad", "checkpoint"]
    (hand, args), (reference, _) = programs["hand"], programs["jax.grad"]
    np.testing.assert_allclose(hand(*args)[1], reference(*args)[1], atol=1e-5)


@pytest.mark.in_turn
def test_a_case_of_kernels_stands_beside_those_of_others_for_its_platform():
    named = {platform: list(of_bench(platform, "attention, S = 1024, in kernels")) for platform in ("cuda", "tpu")}
    assert "cuDNN, bfloat16" in named["cuda"]
    assert "JAX's flash" in named["tpu"]
    assert all(names[:2] == ["hand", "jax.grad"] and "no kernels" in names for names in named.values())


def test_a_check_case_is_value_and_cotangents_in_each_dtype():
    programs = of_check("cuda", "dense", "float32", "bfloat16")
    assert list(programs) == ["float32", "bfloat16"]
    for dtype, (f, args) in programs.items():
        y, (_, ct_x) = jax.eval_shape(f, *args)
        assert y.dtype == ct_x.dtype == jnp.dtype(dtype)


MODULE = """
import jax, jax.numpy as jnp

@jax.custom_vjp
def squared(x):
    return x**2

squared.defvjp(lambda x: (x**2, x), lambda x, ct: (2 * x * ct,))

@jax.custom_vjp
def opaque(x):
    return x + 1

opaque.defvjp(lambda x: (x + 1, None), lambda _, ct: (ct,))

def main():
    squared(jnp.ones(3))
    return opaque(jnp.arange(3.0))

def plain():
    return jnp.ones(3)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    tmp_path.joinpath("rules_of_someone.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "rules_of_someone"
    sys.modules.pop("rules_of_someone", None)


def test_the_rules_of_a_function_stand_beside_their_definitions(module):
    programs = of_function("cuda", f"{module}:main")
    assert list(programs) == ["1 squared: rule", "1 squared: definition", "2 opaque: rule", "2 opaque: definition"]
    (rule, args), (definition, _) = programs["1 squared: rule"], programs["1 squared: definition"]
    for a, b in zip(jax.tree.leaves(rule(*args)), jax.tree.leaves(definition(*args)), strict=True):
        np.testing.assert_allclose(a, b)
    assert of_function("cuda", f"{module}:plain") == {}
    assert KINDS["function"] is of_function
