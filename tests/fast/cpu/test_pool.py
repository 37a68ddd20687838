import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.fast.cpu import pool as cpu
from nnjax.layers.pooling.windows import Pool, make_pool


@pytest.mark.parametrize("window", [2, (2, 2), (3, 2), (1, 4), (12, 11)])
@pytest.mark.parametrize("stride", [1, 2, 3, None])
@pytest.mark.repeats
def test_the_winner_and_the_gradient_are_those_of_the_plain_pair(window, stride):
    dims = 1 if isinstance(window, int) else 2
    stride = stride if dims == 1 or stride is None else (stride,) * 2
    layer, pool = nnjax.plain(nnjax.max_pool(window, stride)), make_pool("max_pool", window, stride, 0)
    sizes = (13,) if dims == 1 else (13, 12)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, (2, *sizes, 2)), jnp.float32)  # ties everywhere

    @jax.jit
    def both(x):
        y, (where, like) = layer.fwd((), x)
        ct = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        fast = cpu.max_pool_bwd((where, like), ct, pool=pool)
        return (y, where), cpu.max_pool_fwd(x, pool=pool), layer.bwd((where, like), ct)[1], fast[1]

    (y, where), found, ct_x, fast_ct_x = both(x)
    np.testing.assert_array_equal(found[0], y)
    np.testing.assert_array_equal(found[1], where)
    assert found[1].dtype == where.dtype
    np.testing.assert_allclose(fast_ct_x, ct_x, atol=1e-5)


PADDED = {
    "overlapping": ((3, 3), (2, 2), 1),
    "uneven": ((2, 3), (1, 2), ((1, 0), (0, 2))),
    "side by side": ((2, 2), (2, 2), ((1, 0), (0, 1))),
    "1-D": (3, 2, "SAME"),
    "3-D, side by side": ((2, 2, 1), (2, 2, 1), (1, 0, 0)),
}


@pytest.mark.parametrize("name", PADDED)
def test_padding_wins_nothing_in_either_spelling(name):
    window, stride, padding = PADDED[name]
    layer, pool = nnjax.plain(nnjax.max_pool(window, stride, padding)), make_pool("max_pool", window, stride, padding)
    shape = (2, *(5, 6, 3)[: len(pool.window)], 2)
    rng = np.random.default_rng(0)
    x = jnp.asarray(np.where(rng.random(shape) < 0.6, -np.inf, rng.integers(0, 2, shape)), jnp.float32)

    @jax.jit
    def both(x):
        y, residuals = layer.fwd((), x)
        ct = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        fast = cpu.max_pool_bwd(residuals, ct, pool=pool)[1]
        return (y, residuals[0]), cpu.max_pool_fwd(x, pool=pool), layer.bwd(residuals, ct)[1], fast, ct

    expected, found, ct_x, fast, ct = both(x)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    np.testing.assert_allclose(fast, ct_x, atol=1e-5)
    np.testing.assert_allclose(fast.sum(), ct.sum(), rtol=1e-3, atol=1e-4)  # none is lost to the padding


def test_a_share_of_the_mean_comes_back_to_every_entry():
    for window, stride in itertools.product([(2,), (3,)], [(1,), (2,), (3,)]):
        layer = nnjax.plain(nnjax.avg_pool(window, stride))
        y, residuals = layer.fwd((), jnp.ones((2, 9, 1)))
        _, found = cpu.avg_pool_bwd(residuals, y, pool=Pool(window, stride))
        np.testing.assert_allclose(found, layer.bwd(residuals, y)[1], rtol=1e-6)
        assert found.shape == (2, 9, 1)
    assert jax.tree.leaves(layer.bwd(residuals, y)[0]) == []
