import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import nnjax
from nnjax.distributed import head_attention, make_mesh
from nnjax.distributed.attention import by_heads, by_heads_t

KEY = jax.random.key(0)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.slow
@pytest.mark.in_turn
def test_heads_on_four_devices_are_the_whole_attention(causal):
    mesh = make_mesh(model=4)
    sharded, one = head_attention(16, 8, mesh, causal=causal), nnjax.attention(16, 8, causal=causal)
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(KEY, p.shape), one.init(KEY))
    x, ct_y = (jax.random.normal(jax.random.key(i), (2, 3, 70, 16)) for i in (1, 2))

    def run(params, x, ct_y):
        y, residuals = sharded.layer.fwd(params, x)
        return y, sharded.layer.apply(params, x), *sharded.layer.bwd(residuals, ct_y)

    f = jax.shard_map(run, mesh=mesh, in_specs=(sharded.specs, P(), P()), out_specs=(P(), P(), sharded.specs, P()))
    y, applied, ct_params, ct_x = jax.jit(f)(by_heads(params), x, ct_y)
    right_y, residuals = one.fwd(params, x)
    right = one.bwd(residuals, ct_y)
    np.testing.assert_allclose(applied, y, rtol=1e-4, atol=1e-5)
    found = (y, by_heads_t(ct_params), ct_x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), found, (right_y, *right))


@pytest.mark.in_turn
def test_the_layout_by_heads_is_a_reshape_and_its_transpose_the_way_back():
    params = nnjax.attention(6, 2).init(KEY)
    apart = by_heads(params)
    assert apart.qkv.w.shape == (6, 3, 6)
    np.testing.assert_array_equal(apart.qkv.w[:, 1], params.qkv.w[:, 6:12])  # the keys
    jax.tree.map(np.testing.assert_array_equal, by_heads_t(apart), params)
    assert jnp.array_equal(apart.out.w, params.out.w)
