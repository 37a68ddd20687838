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
    ("shape", "spec", "n", "d"),
    [((8, 3), P(), 4, 0), ((3, 8), P(), 4, 1), ((8, 8), P("model"), 4, 1), ((3, 5), P(), 4, None), ((), P(), 4, None),
     ((0, 4), P(), 4, 1), ((8,), P("model"), 4, None)],
)  # fmt: skip
def test_a_parameter_is_cut_along_its_first_free_axis_that_fits(shape, spec, n, d):
    assert cut(shape, spec, n) == d


def test_fully_sharded_says_where_and_keeps_what_does_not_fit_whole():
    mesh = make_mesh(shard=4)
    found = fully_sharded(nnjax.dense(3, 8), mesh, "shard")
    assert jax.tree.leaves(found.specs, is_leaf=is_spec) == [P(None, "shard"), P("shard")]
    odd = fully_sharded(nnjax.dense(3, 5), mesh, "shard")
    assert jax.tree.leaves(odd.specs, is_leaf=is_spec) == [P(), P()]
