import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import nnjax
from nnjax.distributed import (
    Sharded,
    column_dense,
    fully_sharded,
    gpt,
    make_mesh,
    mean_over,
    on_mesh,
    replicated,
    residual,
    row_dense,
    scan_layers,
    serial,
    tied,
    vocabulary_embedding,
)
from nnjax.distributed.sharded import cut, cut_alone, lifted

KEY = jax.random.key(0)
DENSE, LOSS = nnjax.dense(3, 3), nnjax.softmax_cross_entropy()


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


@pytest.mark.in_turn
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


def held(sharded, mesh, axes, one, loss=LOSS, x=None, labels=None):
    """Value and gradients over the mesh, by hand and by jax.grad, are those of one device."""
    x = jax.random.normal(jax.random.key(1), (8, 3)) if x is None else x
    labels = jax.random.randint(jax.random.key(2), x.shape[:1], 0, 3, jnp.int32) if labels is None else labels
    params = one.init(KEY)
    right = nnjax.reference_value_and_grad(one, loss)(params, x, labels)
    for make in (nnjax.value_and_grad, nnjax.reference_value_and_grad):
        found = jax.jit(on_mesh(make(sharded.layer, mean_over(loss, axes)), sharded, mesh, axes))(params, x, labels)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, right)


def fully(part, mesh):
    return fully_sharded(part, mesh, "shard")


NESTED = {
    "fully sharded twice": lambda m: fully(fully(DENSE, m), m),
    "fully sharded three times": lambda m: fully(fully(fully(DENSE, m), m), m),
    "replicated twice": lambda m: replicated(replicated(DENSE, "shard"), "shard"),
    "replicated inside": lambda m: fully(replicated(DENSE, "shard"), m),
    "replicated outside": lambda m: replicated(fully(DENSE, m), "shard"),
}  # fmt: skip


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_what_is_summed_inside_is_not_summed_again(name):
    mesh = make_mesh(shard=4)
    held(NESTED[name](mesh), mesh, ("shard",), DENSE)


@pytest.mark.parametrize(
    "outer", [lambda s, m: fully(s, m), lambda s, m: replicated(s, ("data", "shard"))], ids=["fully", "copies"]
)
@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_beside_what_is_summed_inside_the_rest_is_summed(outer, remat):
    mesh, dense = make_mesh(data=2, shard=4), nnjax.serial(nnjax.dense(3, 3), nnjax.tanh())
    parts = (
        dense,
        residual(fully(nnjax.layer_norm(3), mesh)),
        scan_layers(fully(dense, mesh), 2, remat=remat),
        nnjax.dense(3, 8),
    )
    one = nnjax.serial(dense, nnjax.residual(nnjax.layer_norm(3)), nnjax.scan_layers(dense, 2), nnjax.dense(3, 8))
    held(replicated(outer(serial(*parts), mesh), "data"), mesh, ("data", "shard"), one)


def test_copies_along_two_axes_of_what_one_of_them_cuts():
    mesh = make_mesh(data=2, shard=4)
    one = nnjax.serial(nnjax.dense(3, 8), nnjax.dense(8, 3))
    held(replicated(fully(lifted("test", one), mesh), ("data", "shard")), mesh, ("data", "shard"), one)


@pytest.mark.parametrize(("vocab", "width"), [(5, 3), (6, 5)])
@pytest.mark.slow
@pytest.mark.in_turn
def test_a_gpt_whose_sizes_the_axis_does_not_divide(vocab, width):
    mesh, loss = make_mesh(shard=4), nnjax.linear_cross_entropy()
    sizes = {"vocab": vocab, "context": 3, "layers": 2, "heads": 1, "width": width}
    ids, labels = (jax.random.randint(jax.random.key(i), (8, 3), 0, vocab, jnp.int32) for i in (1, 2))
    held(gpt(**sizes, mesh=mesh, data=None, shard="shard"), mesh, ("shard",), nnjax.gpt(**sizes, fused=True), loss, ids, labels)


@pytest.mark.in_turn
def test_a_table_is_summed_once_where_both_its_uses_are_sharded():
    mesh, loss, body = make_mesh(shard=4), nnjax.softmax_cross_entropy(), nnjax.dense(3, 3)
    ids, labels = (jax.random.randint(jax.random.key(i), (8, 2), 0, 8, jnp.int32) for i in (1, 2))
    for vocab in (8, 9):
        embed, head = nnjax.embedding(vocab, 3), nnjax.unembedding(vocab, 3)
        both = fully(tied(fully(embed, mesh), body, fully(head, mesh)), mesh)
        held(both, mesh, ("shard",), nnjax.tied(embed, body, head), loss, ids, labels)


def test_the_axes_over_which_gradients_are_summed_are_known():
    mesh = make_mesh(data=2, shard=4)
    found = serial(fully(nnjax.dense(3, 8), mesh), column_dense(8, 4, mesh, "data"))
    assert jax.tree.leaves(found.summed) == [{"shard"}, {"shard"}, set(), set()]
    assert cut_alone(found) == {"data"}
    by_hand = Sharded(DENSE, lifted("test", DENSE).specs)
    assert by_hand.summed is None
    assert jax.tree.leaves(replicated(by_hand, ("data", "shard")).summed) == [{"data", "shard"}] * 2


CUT = r"layers split over the mesh axis 'model' need the same examples .*; use two axes"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: fully_sharded(row_dense(4, 4, m), m, "model"), ValueError, rf"distributed.fully_sharded: {CUT}"),
        (lambda m: replicated(column_dense(4, 4, m), ("shard", "model")), ValueError, rf"distributed.replicated: {CUT}"),
        (lambda m: serial(replicated(DENSE, "model"), column_dense(3, 4, m)), ValueError, rf"distributed.serial: {CUT}"),
        (lambda m: tied(vocabulary_embedding(4, 3, m), replicated(DENSE, "model"), nnjax.unembedding(4, 3, fused=True)),
         ValueError, rf"distributed.tied: {CUT}"),
        (lambda m: tied(fully(nnjax.embedding(4, 3), m), DENSE, nnjax.unembedding(4, 3)), ValueError,
         r"distributed.tied: .*only one of them sums its gradient"),
        (lambda m: tied(lifted("", nnjax.embedding(5, 3)), DENSE, replicated(nnjax.unembedding(5, 3), "shard")), ValueError,
         r"make the whole tied model replicated or fully_sharded, or both of them"),
        (lambda m: tied(vocabulary_embedding(4, 3, m), DENSE, lifted("", nnjax.unembedding(4, 3))), ValueError,
         r"share one table, .*\[.*'model'.*\] for embed and \[.*\] for head; shard both alike"),
        (lambda m: tied(nnjax.embedding, DENSE, DENSE), TypeError, r"distributed.tied: expected a Layer, got embedding"),
        (lambda m: fully_sharded(DENSE, m, "shrad"), ValueError, r"one of the mesh, shard, model, got 'shrad'"),
        (lambda m: fully_sharded(DENSE, m, ("shard", "model")), TypeError, r"the name of one mesh axis, got \('shard'"),
        (lambda m: on_mesh(LOSS.apply, column_dense(4, 4, m), m, "model"), ValueError,
         r"on_mesh: the batch cannot lie along the mesh axis 'model'"),
    ],
)  # fmt: skip
def test_one_axis_for_two_uses_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(make_mesh(shard=2, model=2))
