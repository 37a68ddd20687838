import jax
import jax.numpy as jnp
import pytest

from nnjax.fast.kernels.loss_plan import CUDA_PROGRAMS, TPU_BYTES, classes_grid, held, plan_for, rows_grid
from nnjax.fast.kernels.plan import CUDA, TPU, compiler_params


def given(n, v, d, dtype=jnp.float32):
    return jax.ShapeDtypeStruct((n, d), dtype), jax.ShapeDtypeStruct((v, d), dtype)


def test_blocks_go_by_width_and_dtype_and_are_no_larger_than_they_need_be():
    found = plan_for(CUDA, *given(2048, 32768, 256))
    assert (found.rows, found.columns, found.width, found.programs) == (64, 32, 256, CUDA_PROGRAMS)
    assert plan_for(CUDA, *given(2048, 32768, 256, jnp.bfloat16)).columns == 64
    assert plan_for(CUDA, *given(2048, 32768, 64, jnp.bfloat16)).rows == 128
    assert plan_for(CUDA, *given(512, 50257, 768)).width == 256
    tiny = plan_for(CUDA, *given(1, 33, 5))
    assert (tiny.rows, tiny.columns, tiny.width, tiny.features) == (16, 64, 16, 5)
    assert [plan_for(TPU, *given(2048, 32768, d)).rows for d in (256, 768, 1024, 4096)] == [512, 512, 256, 128]
    assert (plan_for(TPU, *given(1, 300, 5)).rows, plan_for(TPU, *given(1, 300, 5)).columns) == (128, 512)
    assert held(512, 256, 4) <= TPU_BYTES < held(512, 1024, 4)


@pytest.mark.parametrize("platform", [CUDA, TPU])
def test_unsupported_arguments_have_no_plan(platform):
    assert plan_for(platform, *given(4, 4, 4)) is not None
    for sizes in ((0, 4, 4), (4, 0, 4), (4, 1, 4), (4, 4, 0), (4, 1 << 20, 1 << 11)):
        assert plan_for(platform, *given(*sizes)) is None
    assert plan_for(platform, *given(4, 4, 4, jnp.float64)) is None
    assert plan_for(platform, given(4, 4, 4)[0], given(4, 4, 4, jnp.bfloat16)[1]) is None
    assert (plan_for(platform, *given(4, 4, 4, jnp.float16)) is None) == (platform == TPU)
    assert plan_for(platform, *given(4, 4, 4096)) is not None
    assert (plan_for(platform, *given(4, 4, 8192)) is None) == (platform == TPU)


def test_few_blocks_share_what_they_run_past_and_every_part_has_a_block():
    plan = plan_for(CUDA, *given(2048, 32768, 256))
    assert rows_grid(plan, 1) == (32, 1, 1024, 5, 205)
    assert classes_grid(plan, 1) == (1024, 1, 32, 1, 32)
    assert rows_grid(plan_for(TPU, *given(2048, 32768, 256)), 1).parts == 1
    for n in range(1, 400, 7):
        for v in (2, 33, 100, 1000):
            plan = plan_for(CUDA, *given(n, v, 256))
            for grid in (rows_grid(plan, 1), classes_grid(plan, 3)):
                assert (grid.parts - 1) * grid.each < grid.past <= grid.parts * grid.each


def test_a_plan_knows_its_compilers_options():
    assert compiler_params(plan_for(TPU, *given(4, 4, 4))) is None
    assert compiler_params(plan_for(CUDA, *given(4, 4, 4))).num_warps == 8
