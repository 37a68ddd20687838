"""The spellings of a TPU, run here: their operations are known to every platform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.cases import hard
from nnjax.fast.tpu import pool
from nnjax.layers.pool import max_pool_bwd, max_pool_fwd
from nnjax.layers.pooling.windows import Pool

WINDOWS = {
    "side by side": ((2, 2), (2, 2), (3, 4, 6, 2)),
    "overlapping": ((3, 2), (1, 1), (2, 5, 4, 3)),
    "with gaps": ((2, 1), (3, 2), (2, 7, 5, 2)),
    "a line": ((3,), (2,), (2, 3, 8, 2)),
    "one place": ((3, 3), (1, 1), (1, 3, 3, 1)),
    "no example": ((2, 2), (2, 2), (0, 4, 4, 1)),
    "with padding": ((3, 2), (2, 1), (2, 5, 4, 3), ((1, 2), (1, 0))),
    "same size": ((3, 3), (2, 2), (2, 6, 5, 2), "SAME"),
    "a last window beyond the end": ((2, 3), (2, 2), (2, 5, 6, 1), ((0, 1), (1, 1)), True),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.repeats
def test_they_give_what_the_plain_pair_gives_bit_for_bit(name, dtype):
    window, stride, shape, padding, ceil = (*WINDOWS[name], *("VALID", False)[len(WINDOWS[name]) - 3 :])
    how = {"pool": Pool(window, stride, padding, ceil=ceil)}
    x = hard(np.random.default_rng(0), shape).astype(dtype)  # with ties
    x = jnp.where(x > 1, jnp.asarray(-jnp.inf, dtype), x)

    def step(x, ct):
        y, residuals = max_pool_fwd((), x, **how)
        own, where = pool.max_pool_fwd(x, **how)
        return (y, residuals[0]), (own, where), max_pool_bwd(residuals, ct, **how), pool.max_pool_bwd(residuals, ct, **how)

    y = jax.eval_shape(lambda x: max_pool_fwd((), x, **how)[0], x)
    ct = jnp.asarray(np.random.default_rng(1).integers(-8, 8, y.shape), dtype)  # integers: any order of a sum is exact
    plain, own, ct_plain, ct_own = jax.jit(step)(x, ct)
    jax.tree.map(np.testing.assert_array_equal, own, plain)
    jax.tree.map(np.testing.assert_array_equal, ct_own, ct_plain)


def test_the_gradient_has_gradients_and_may_be_mapped():
    how = {"pool": Pool((2, 2), (1, 1))}
    xs = hard(np.random.default_rng(2), (3, 2, 4, 4, 2))
    cts = jnp.asarray(np.random.default_rng(3).standard_normal((3, 2, 3, 3, 2)), jnp.float32)

    def norm(bwd):
        def f(ct, x):
            _, residuals = max_pool_fwd((), x, **how)
            return (bwd(residuals, ct, **how)[1] ** 2).sum()

        return jax.jit(jax.vmap(jax.grad(f)))(cts, xs)

    np.testing.assert_allclose(norm(pool.max_pool_bwd), norm(max_pool_bwd), rtol=1e-6)


def test_a_program_for_a_tpu_has_one_operation_each_way():
    layer, x = nnjax.max_pool((2, 2)), jnp.zeros((2, 4, 4, 1))

    def step(x):
        y, residuals = layer.fwd((), x)
        return layer.bwd(residuals, y)

    text = jax.jit(step).trace(x).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("stablehlo.select_and_scatter") == text.count('"stablehlo.reduce_window"') == 1
    assert "stablehlo.pad" not in text


def test_padding_is_part_of_both_operations_and_dilated_windows_take_the_plain_pair():
    def text(**how):
        layer = nnjax.max_pool((3, 3), (2, 2), 1, **how)

        def step(x):
            y, residuals = layer.fwd((), x)
            return layer.bwd(residuals, y)

        return jax.jit(step).trace(jnp.zeros((2, 6, 6, 1))).lower(lowering_platforms=("tpu",)).as_text()

    assert text().count("stablehlo.select_and_scatter") == text().count('"stablehlo.reduce_window"') == 1
    assert "reduce_window" not in text(dilation=2)
