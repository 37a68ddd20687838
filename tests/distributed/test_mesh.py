import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import nnjax
from nnjax.distributed import (
    column_dense,
    fully_sharded,
    gpt,
    head_attention,
    make_mesh,
    mean_over,
    on_mesh,
    place,
    replicated,
    row_dense,
    vocabulary_embedding,
)

KEY = jax.random.key(0)
LOSS = nnjax.softmax_cross_entropy()


def test_a_mesh_has_its_axes_over_the_first_devices():
    mesh = make_mesh(data=2, model=3)
    assert dict(mesh.shape) == {"data": 2, "model": 3}
    assert [d.id for d in mesh.devices.ravel()] == list(range(6))


@pytest.mark.in_turn
def test_the_package_is_there_without_being_imported():
    program = "import nnjax; nnjax.distributed.make_mesh(data=1); print(nnjax.parallel(nnjax.relu()).name)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "parallel" in done.stdout


@pytest.mark.in_turn
def test_placed_parameters_and_their_optimizer_state_take_an_nth_of_the_memory():
    mesh = make_mesh(shard=8)
    model = gpt(16, 8, 2, 8, 16, mesh, data=None, shard="shard")
    params = place(model.layer.init(KEY), model.specs, mesh)
    here = sum(p.addressable_shards[0].data.nbytes for p in jax.tree.leaves(params))
    assert 8 * here == sum(p.nbytes for p in jax.tree.leaves(params))


@pytest.mark.slow
@pytest.mark.in_turn
def test_every_device_draws_its_own_mask():
    mesh = make_mesh(data=4)
    model = replicated(nnjax.dropout(0.5), "data")
    drop = jax.shard_map(
        lambda x, key: model.layer.apply((), x, key=key), mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data")
    )
    same = drop(jnp.ones((4, 64)), KEY)
    np.testing.assert_array_equal(same[0], same[1])  # the plain layer draws one mask for all

    def value_and_grad(params, x, labels, *, weights=None, key=None):
        y = model.layer.apply(params, x, key=key)
        return jax.lax.psum((y * labels).sum(), "data"), params

    f = on_mesh(value_and_grad, model, mesh)
    rows = [float(f((), jnp.ones((4, 64)), jnp.zeros((4, 64)).at[i].set(jnp.arange(64.0)), key=KEY)[0]) for i in range(4)]
    assert len(set(rows)) == 4


def f_of(mesh):
    model = replicated(nnjax.mlp([4, 3]), "data")
    f = on_mesh(nnjax.value_and_grad(model.layer, mean_over(LOSS, "data")), model, mesh)
    return f, model.layer.init(KEY)


MLP = nnjax.mlp([4, 3])


def misused(model, loss=LOSS, axis="data"):
    mesh = make_mesh(data=4)
    f = on_mesh(nnjax.value_and_grad(getattr(model, "layer", model), loss), model, mesh, axis)
    return f(MLP.init(KEY), jnp.ones((8, 4)), jnp.zeros(8, jnp.int32))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: misused(MLP), TypeError, r"on_mesh: model must be Sharded, got Layer; make it"),
        (lambda m: misused(replicated(MLP, "data")), ValueError, r"make f from mean_over\(loss, axis"),
        (lambda m: misused(replicated(MLP, "data"), axis="date"), ValueError, r"unknown axis of this mesh 'date'"),
        (lambda m: make_mesh(data=16), ValueError, r"data=16 needs 16 devices, got 8; make an"),
        (lambda m: make_mesh(), ValueError, r"expected at least one axis, got none; name one with its size"),
        (lambda m: make_mesh(data=0), ValueError, r"make_mesh: data must be a positive int, got 0"),
        (lambda m: column_dense(4, 6, m), ValueError, r"column_dense: n_out must be a multiple of 4, .*, got 6; change"),
        (lambda m: row_dense(6, 4, m), ValueError, r"row_dense: n_in must be a multiple of 4, .* got 6"),
        (lambda m: head_attention(12, 6, m), ValueError, r"head_attention: heads must be a multiple of 4, .* got 6"),
        (lambda m: vocabulary_embedding(65, 4, m), ValueError, r"vocab must be a multiple of 4, .* got 65"),
        (lambda m: column_dense(4, 8, m, "rows"), ValueError, r"one of the mesh, data, model, got 'rows'"),
        (lambda m: f_of(m)[0](f_of(m)[1], jnp.ones((7, 4)), jnp.zeros(7, jnp.int32)), ValueError,
         r"the batch must be a multiple of 2, the size of the mesh axis 'data', got 7; change one"),
        (lambda m: f_of(m)[0](f_of(m)[1], jnp.ones((8, 4)), jnp.zeros((), jnp.int32)), ValueError,
         r"expected a batch along the first axis, got int32 \(\); pass arrays of examples"),
        (lambda m: replicated(nnjax.dense, "data"), TypeError, r"expected a Layer, got dense; call the factory"),
        (lambda m: fully_sharded(nnjax.dense, m, "data"), TypeError, r"expected a Layer, got dense; call the factory"),
    ],
)  # fmt: skip
@pytest.mark.in_turn
def test_bad_input_is_one_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call(make_mesh(data=2, model=4))


def test_the_combinator_parallel_keeps_its_name():
    layer = nnjax.parallel(nnjax.dense(3, 2), nnjax.tanh())
    assert layer.name == "parallel"
