import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.fast.kernels.calls import laid, laid_shape, laid_t, placed
from nnjax.fast.kernels.plan import CUDA, TPU, Plan


@pytest.mark.parametrize("platform", [CUDA, TPU])
def test_arrays_are_laid_out_and_taken_back(platform):
    plan = Plan(platform, 5, 5, 3, 4, 4, 16)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6, 5, 3)), jnp.float32)
    y = laid(x, 4, plan)
    assert y.shape == laid_shape(2, 6, 5, 4, plan) == ((2, 8, 6, 16) if platform == CUDA else (2, 6, 8, 16))
    assert float(jnp.abs(y).sum()) == pytest.approx(float(jnp.abs(x).sum()))
    np.testing.assert_array_equal(laid_t(y, x.shape, plan), x)


def test_programs_stand_in_one_row():
    programs = jnp.arange(2 * 3 * 4, dtype=jnp.int32)
    assert [tuple(map(int, placed(p, 3, 4))) for p in programs] == [
        (b, h, i) for b in range(2) for h in range(3) for i in range(4)
    ]
