import sys
import warnings

import jax
import jax.numpy as jnp
import pytest

from nnjax.fast.kernels import plan
from nnjax.fast.kernels.plan import CUDA, TPU, amounts, compiler_params, has_pallas, has_triton, plan_for, power_of_two


def given(s, d, dtype=jnp.float32, g=1, b=1, t=None):
    return jax.ShapeDtypeStruct((b, 2, g, s, d), dtype), jax.ShapeDtypeStruct((b, 2, s if t is None else t, d), dtype)


def test_blocks_go_by_head_size_and_dtype_and_are_no_larger_than_they_need_be():
    found = plan_for(CUDA, *given(4096, 64))
    assert (found.rows, found.columns, found.width) == (64, 64, 64)
    assert plan_for(CUDA, *given(4096, 64, jnp.bfloat16)).rows == 128
    assert plan_for(CUDA, *given(4096, 128)).columns == 32
    tiny = plan_for(CUDA, *given(1, 5, t=33))
    assert (tiny.rows, tiny.columns, tiny.width, tiny.features) == (16, 64, 16, 5)
    assert plan_for(TPU, *given(4096, 64)).rows == 256
    assert plan_for(TPU, *given(1, 5, t=33)).rows == 128


@pytest.mark.parametrize("platform", [CUDA, TPU])
def test_unsupported_arguments_have_no_plan(platform):
    assert plan_for(platform, *given(64, 64)) is not None
    assert plan_for(platform, *given(64, 64, b=0)) is None
    assert plan_for(platform, *given(1, 64)) is None
    assert plan_for(platform, *given(64, 64, jnp.float64)) is None
    assert plan_for(platform, given(64, 64)[0], given(64, 64, jnp.bfloat16)[1]) is None
    assert (plan_for(platform, *given(64, 64, jnp.float16)) is None) == (platform == TPU)
    assert (plan_for(platform, *given(64, 512)) is None) == (platform == CUDA)
    assert (plan_for(platform, *given(1 << 20, 64)) is None) == (platform == TPU)


def test_no_pallas_or_no_lowering_to_triton_is_seen(monkeypatch):
    assert has_pallas()
    assert has_triton()
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.triton", None)
    assert not has_triton()
    assert has_pallas()
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas", None)
    assert not has_pallas()


def test_a_module_that_moves_is_imported_past_its_warning(monkeypatch):
    monkeypatch.setattr(plan.importlib, "import_module", lambda name: warnings.warn(name, DeprecationWarning, stacklevel=1))
    assert plan.installed("pallas") is None


def test_pieces():
    assert [power_of_two(n) for n in (0, 1, 2, 3, 64, 65)] == [1, 1, 2, 4, 64, 128]
    assert amounts((2, 3, 4), {-2: 8, -1: 5}) == ((0, 0), (0, 5), (0, 1))
    assert compiler_params(plan_for(TPU, *given(64, 64))) is None
    assert compiler_params(plan_for(CUDA, *given(64, 64))).num_warps == 8
