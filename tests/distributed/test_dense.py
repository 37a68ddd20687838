"""Each split layer against the whole one on one device: value, and cotangents of parameters and input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import nnjax
from nnjax.distributed import column_dense, make_mesh, row_dense, serial

KEY = jax.random.key(0)
COLUMNS = P(None, "model")


def on(mesh, sharded, x_spec, y_spec):
    """run(params, x, ct_y) -> (y, ct_params, ct_x), of whole arrays."""

    def run(params, x, ct_y):
        y, residuals = sharded.layer.fwd(params, x)
        return y, *sharded.layer.bwd(residuals, ct_y)

    specs = (sharded.specs, x_spec, y_spec)
    return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=(y_spec, sharded.specs, x_spec)))


def held(found, layer, params, x, ct_y):
    y, residuals = layer.fwd(params, x)
    right = (y, *layer.bwd(residuals, ct_y))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, right)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize(("make", "x_spec", "y_spec"), [(column_dense, P(), COLUMNS), (row_dense, COLUMNS, P())])
def test_both_cuts_are_the_whole_layer(make, x_spec, y_spec, n):
    mesh = make_mesh(model=n)
    sharded, one = make(8, 12, mesh), nnjax.dense(8, 12)
    params = one.init(KEY)._replace(b=jnp.arange(12.0))
    jax.tree.map(np.testing.assert_array_equal, sharded.layer.init(KEY), one.init(KEY))
    x, ct_y = jax.random.normal(jax.random.key(1), (5, 8)), jax.random.normal(jax.random.key(2), (5, 12))
    held(on(mesh, sharded, x_spec, y_spec)(params, x, ct_y), one, params, x, ct_y)


def test_apply_is_the_value_of_fwd_and_jax_grad_through_it_agrees():
    mesh = make_mesh(model=4)
    pair, one = serial(column_dense(8, 12, mesh), nnjax.tanh(), row_dense(12, 3, mesh)), nnjax.mlp([8, 12, 3], nnjax.tanh())
    params, x = one.init(KEY), jax.random.normal(jax.random.key(1), (5, 8))
    ct_y = jax.random.normal(jax.random.key(2), (5, 3))
    y, *hand = on(mesh, pair, P(), P())(params, x, ct_y)
    f = jax.jit(jax.shard_map(pair.layer.apply, mesh=mesh, in_specs=(pair.specs, P()), out_specs=P()))
    by_jax, pull = jax.vjp(f, params, x)
    np.testing.assert_array_equal(y, by_jax)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), tuple(hand), pull(ct_y))
    held((y, *hand), one, params, x, ct_y)
