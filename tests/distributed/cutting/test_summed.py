import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import nnjax
from nnjax.distributed import cut_swiglu, grouped_attention, make_mesh
from nnjax.distributed.cutting.summed import by_groups, by_groups_t

KEY = jax.random.key(0)


def held(sharded, one, there, back, devices):
    """y and every cotangent over a mesh are those of one device."""
    mesh = make_mesh(model=devices)
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(KEY, p.shape), one.init(KEY))
    x, ct_y = (jax.random.normal(jax.random.key(i), (2, 3, 7, 16)) for i in (1, 2))

    def run(params, x, ct_y):
        y, residuals = sharded.layer.fwd(params, x)
        return y, sharded.layer.apply(params, x), *sharded.layer.bwd(residuals, ct_y)

    f = jax.shard_map(run, mesh=mesh, in_specs=(sharded.specs, P(), P()), out_specs=(P(), P(), sharded.specs, P()))
    y, applied, ct_params, ct_x = jax.jit(f)(there(params), x, ct_y)
    right_y, residuals = one.fwd(params, x)
    np.testing.assert_allclose(applied, y, rtol=1e-4, atol=1e-5)
    found, right = (y, back(ct_params), ct_x), (right_y, *one.bwd(residuals, ct_y))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), found, right)


@pytest.mark.parametrize(
    "options",
    [{"rope": True, "bias": True}, {"rope": True, "rope_theta": 50.0, "window": (2, 0)}, {"head_dim": 6, "causal": False}],
    ids=str,
)
@pytest.mark.slow
@pytest.mark.in_turn
def test_groups_of_heads_on_two_devices_are_the_whole_attention(options):
    mesh = make_mesh(model=2)
    sharded = grouped_attention(16, 8, mesh, kv_heads=4, **options)
    one = nnjax.attention(16, 8, kv_heads=4, out_bias=False, **{"bias": False, **options})
    held(sharded, one, lambda p: by_groups(p, 2), lambda p: by_groups_t(p, 2), 2)


@pytest.mark.slow
@pytest.mark.in_turn
def test_hidden_features_on_four_devices_are_the_whole_layer():
    held(cut_swiglu(16, 12, make_mesh(model=4)), nnjax.swiglu(16, 12), lambda p: p, lambda p: p, 4)


@pytest.mark.in_turn
def test_the_layout_by_groups_has_each_devices_columns_side_by_side_and_back():
    params = nnjax.attention(8, 4, kv_heads=2, out_bias=False).init(KEY)
    apart = by_groups(params, 2)
    first, second = jnp.split(apart.qkv.w, 2, -1)
    q, k, v = params.qkv.w[:, :8], params.qkv.w[:, 8:12], params.qkv.w[:, 12:]
    for own, i in ((first, 0), (second, 1)):
        np.testing.assert_array_equal(
            own, jnp.concatenate([a[:, i * n : (i + 1) * n] for a, n in ((q, 4), (k, 2), (v, 2))], -1)
        )
    jax.tree.map(np.testing.assert_array_equal, by_groups_t(apart, 2), params)
    stacked = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params)
    jax.tree.map(np.testing.assert_array_equal, by_groups_t(by_groups(stacked, 2), 2), stacked)


def test_sizes_that_the_axis_does_not_divide_are_refused():
    mesh = make_mesh(model=4)
    with pytest.raises(ValueError, match=r"kv_heads must be a multiple of 4, .*got 2"):
        grouped_attention(16, 8, mesh, kv_heads=2)
    with pytest.raises(ValueError, match=r"hidden must be a multiple of 4, .*got 6"):
        cut_swiglu(16, 6, mesh)
