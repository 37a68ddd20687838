import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.fast.cpu.recurrence import recur, recur_bwd
from nnjax.layers.recurring.linear_recurrence import linear_recurrence_bwd, linear_recurrence_fwd


def drawn(batch, time, n, dtype="float32"):
    rng = np.random.default_rng(0)
    a = np.where(rng.random((batch, time, n)) < 0.05, 0, rng.uniform(0.5, 1, (batch, time, n)))
    return [jnp.asarray(v, dtype) for v in (a, *rng.standard_normal((2, *a.shape)), rng.standard_normal((batch, n)))]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sizes", [(2, 0, 3), (2, 1, 3), (0, 5, 3), (2, 67, 3)], ids=str)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_one_step_after_another_is_the_same_as_by_pairs(sizes, reverse):
    a, b, ct_y, h = drawn(*sizes)
    y, residuals = linear_recurrence_fwd(a, b, h, reverse=reverse)
    np.testing.assert_allclose(recur(a, b, h, reverse=reverse), y, rtol=2e-5, atol=2e-5)
    for found, right in zip(*(f(residuals, ct_y, reverse=reverse) for f in (recur_bwd, linear_recurrence_bwd)), strict=True):
        assert found.shape == right.shape
        np.testing.assert_allclose(found, right, rtol=2e-5, atol=2e-5)


def test_in_bfloat16_the_state_is_kept_in_float32():
    a, b, ct_y, h = drawn(1, 500, 2, "bfloat16")
    assert recur(a, b, h).dtype == jnp.float32
    assert all(ct.dtype == jnp.bfloat16 for ct in recur_bwd((a, h, b), ct_y))
    ones = jnp.ones_like(a)
    assert recur(ones, ones, 0 * h)[0, -1, 0] == 500  # in bfloat16 it would stay at 256
    assert recur_bwd((ones, h, b), ones)[2][0, 0] == 500
