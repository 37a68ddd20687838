import pytest

from nnjax.fast.kernels.loss_calls import OWN, PAST, out_spec, spec
from nnjax.fast.kernels.loss_plan import Plan
from nnjax.fast.kernels.plan import CUDA, TPU


@pytest.mark.parametrize("shape", [(10, 3), (1, 3), (10, 1), (1, 1)])
def test_a_gpu_gets_whole_arrays_and_a_tpu_the_blocks_of_its_two_programs(shape):
    on_gpu, on_tpu = (Plan(platform, 10, 11, 3, 4, 8, 3) for platform in (CUDA, TPU))
    assert spec(shape, 4, OWN, on_gpu).block_shape == shape
    own, past = spec(shape, 4, OWN, on_tpu), spec(shape, 4, PAST, on_tpu)
    assert own.block_shape == past.block_shape == (4, shape[1])
    assert own.index_map(5, 6) == (5, 0)
    assert past.index_map(5, 6) == (6, 0)


def test_numbers_may_lie_across_and_results_stay_while_a_tpu_goes_past_the_rest():
    plan = Plan(TPU, 10, 11, 3, 4, 8, 3)
    across = spec((1, 10), 4, PAST, plan, across=True)
    assert (across.block_shape, across.index_map(5, 6)) == ((1, 4), (0, 6))
    out = out_spec((1, 10, 3), 4, plan)
    assert (out.block_shape, out.index_map(5, 6)) == ((None, 4, 3), (0, 5, 0))
    assert out_spec((2, 10, 3), 4, plan._replace(platform=CUDA)).block_shape == (2, 10, 3)
