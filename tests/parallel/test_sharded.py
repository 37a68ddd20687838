import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import nnjax
from nnjax.parallel import column_dense, fully_sharded, make_mesh, residual, scan_layers, serial, tied, vocabulary_embedding
from nnjax.parallel.sharded import cut, lifted

KEY = jax.random.key(0)


def is_spec(s):
    return isinstance(s, P)


def test_a_plain_layer_is_whole_everywhere():
    found = lifted("test", nnjax.serial(nnjax.dense(3, 2), nnjax.relu()))
    assert jax.tree.leaves(found.specs, is_leaf=is_spec) == [P(), P()]
    with pytest.raises(TypeError, match="test: expected a Layer, got int"):
        lifted("test", 3)


def test_composed_layers_have_composed_specs_and_the_parameters_of_one_device():
    mesh = make_mesh(model=2)
    block = residual(serial(nnjax.layer_norm(4), column_dense(4, 4, mesh)))
    stacked = scan_layers(block, 3)
    assert jax.tree.leaves(stacked.specs, is_leaf=is_spec) == [P(None), P(None), P(None, None, "model"), P(None, "model")]
    whole = tied(vocabulary_embedding(6, 4, mesh), stacked, nnjax.unembedding(6, 4, fused=True))
    assert jax.tree.structure(whole.specs, is_leaf=is_spec) == jax.tree.structure(whole.layer.init(KEY))
    one = nnjax.scan_layers(nnjax.residual(nnjax.serial(nnjax.layer_norm(4), nnjax.dense(4, 4))), 3)
    jax.tree.map(np.testing.assert_array_equal, stacked.layer.init(KEY), one.init(KEY))


@pytest.mark.parametrize(
    ("shape", "spec", "d"),
    [((8, 3), P(), 0), ((3, 8), P(), 1), ((8, 8), P("model"), 1), ((3, 5), P(), None), ((), P(), None), ((0, 4), P(), 1),
     ((8,), P("model"), 0), ((12,), P("model"), None), ((8, 3), P("model"), 0)],
)  # fmt: skip
def test_a_parameter_is_cut_along_its_first_axis_that_fits_one_of_its_own_if_there_is_any(shape, spec, d):
    assert cut(shape, spec, make_mesh(shard=4, model=2), "shard") == d


def test_fully_sharded_says_where_and_keeps_what_does_not_fit_whole():
    mesh = make_mesh(shard=4)
    found = fully_sharded(nnjax.dense(3, 8), mesh, "shard")
    assert jax.tree.leaves(found.specs, is_leaf=is_spec) == [P(None, "shard"), P("shard")]
    odd = fully_sharded(nnjax.dense(3, 5), mesh, "shard")
    assert jax.tree.leaves(odd.specs, is_leaf=is_spec) == [P(), P()]


def test_what_two_axes_cut_along_one_is_whole_again_when_gathered():
    mesh = make_mesh(shard=4, model=2)
    found = fully_sharded(column_dense(3, 8, mesh), mesh, "shard")
    assert jax.tree.leaves(found.specs, is_leaf=is_spec) == [P(None, ("model", "shard")), P(("model", "shard"))]
    params = nnjax.dense(3, 8).init(KEY)._replace(b=np.arange(8.0, dtype=np.float32))
    f = jax.shard_map(found.layer.apply, mesh=mesh, in_specs=(found.specs, P("shard")), out_specs=P("shard", "model"))
    x = np.arange(24, dtype=np.float32).reshape(8, 3)
    np.testing.assert_allclose(f(params, x), nnjax.dense(3, 8).apply(params, x), rtol=1e-5)


def test_what_is_fully_sharded_already_is_left_to_it():
    mesh = make_mesh(shard=4)
    inner = fully_sharded(nnjax.dense(4, 8), mesh, "shard")
    whole = fully_sharded(serial(inner, nnjax.dense(8, 4)), mesh, "shard")
    x, ct_y = jax.random.normal(KEY, (8, 4)), jax.random.normal(jax.random.key(1), (8, 4))
    assert whole.specs[0] == inner.specs
    one = nnjax.serial(nnjax.dense(4, 8), nnjax.dense(8, 4))

    def run(params, x, ct_y):
        y, residuals = whole.layer.fwd(params, x)
        return y, whole.layer.bwd(residuals, ct_y)

    batch = P("shard")
    f = jax.shard_map(run, mesh=mesh, in_specs=(whole.specs, batch, batch), out_specs=(batch, (whole.specs, batch)))
    params = one.init(KEY)
    y, residuals = one.fwd(params, x)
    right = y, one.bwd(residuals, ct_y)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), jax.jit(f)(params, x, ct_y), right)
