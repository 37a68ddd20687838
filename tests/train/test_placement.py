"""Where a state lies: parameters by their specs, the optimizer's arrays with them, everything else on all devices."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nnjax.train import make_optimizer
from nnjax.train.placement import ONE_DEVICE, OnMesh
from nnjax.train.step import make_step

KEY = jax.random.key(0)
PARAMS = {"w": jnp.arange(32.0).reshape(8, 4), "b": jnp.ones(4)}


def placement(**more):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    at = {"w": NamedSharding(mesh, P("model")), "b": NamedSharding(mesh, P())}
    return OnMesh(at, NamedSharding(mesh, P("data")), **more)


def test_the_state_lies_with_the_parameters_and_stays_there():
    where = placement()
    optimizer = make_optimizer("adam", 0.1, clip=1.0, average=0.9)
    state = where.state(PARAMS, optimizer, KEY)
    jax.tree.map(np.testing.assert_array_equal, state.params, PARAMS)
    assert len([a for a in jax.tree.leaves(state) if a.sharding.spec == P("model")]) == 4  # w, its two moments, its average

    def f(params, x, labels, *, weights=None, key=None):
        return x.sum(), jax.tree.map(jnp.ones_like, params)

    step = where.staying(make_step(f, optimizer))
    after, _ = jax.jit(step)(state, jnp.ones(4), None)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim)


def test_a_leaf_of_another_shape_lies_everywhere():
    optimizer = optax.GradientTransformation(lambda params: jax.tree.map(jnp.sum, params), lambda u, s, p=None: (u, s))
    state = placement().state(PARAMS, optimizer, KEY)
    assert all(a.sharding.is_fully_replicated for a in jax.tree.leaves(state.opt_state))


def turned(tree):
    return jax.tree.map(lambda a: a.T if a.ndim == 2 else a, tree)


def test_the_layout_is_changed_and_changed_back():
    where = placement(cut=turned, back=turned)
    state = where.state(PARAMS, optax.adam(0.1), KEY)
    assert state.params["w"].shape == (4, 8)
    assert state.opt_state[0].mu["w"].shape == (4, 8)
    back = where.join(state)
    jax.tree.map(np.testing.assert_array_equal, back.params, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, where.put(back).params, state.params)
    jax.tree.map(np.testing.assert_array_equal, where.on_host(state.params), PARAMS)

    def f(params, x):
        assert params["w"].shape == (4, 8)
        return x.sum(), params

    value, grads = jax.jit(where.as_on_one_device(f))(PARAMS, jnp.ones(3))
    assert value == 3
    jax.tree.map(np.testing.assert_array_equal, grads, PARAMS)
    x = where.everywhere(np.ones((5, 8), np.float32))  # five examples on four devices
    y = jax.jit(where.predicting(lambda params, x: x @ params["w"]))(state.params, x)
    np.testing.assert_array_equal(y, np.ones((5, 8), np.float32) @ PARAMS["w"])


def test_rows_lie_on_the_devices_that_share_a_batch():
    where = placement()
    rows = np.arange(24, dtype=np.int32).reshape(3, 8)
    fed = where.feed(rows)
    np.testing.assert_array_equal(fed, rows)
    assert {shard.data.shape for shard in fed.addressable_shards} == {(3, 2)}
    assert where.own(8).tolist() == list(range(8))
    assert isinstance(ONE_DEVICE.feed(rows), jax.Array)


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    ONE_DEVICE.expect_batch("fit", 7)
    placement().expect_batch("fit", 8)
    with pytest.raises(ValueError, match=r"^fit: the batch size must be a multiple of 4, .* \(data=4\), got 6; change one"):
        placement().expect_batch("fit", 6)
    nobody = replace(placement(), batch=NamedSharding(placement().batch.mesh, P(())))
    nobody.expect_batch("fit", 7)


def test_on_one_device_nothing_changes():
    state = ONE_DEVICE.state(PARAMS, optax.sgd(0.1), KEY)
    assert ONE_DEVICE.put(state) is state
    assert ONE_DEVICE.join(state) is state
    assert ONE_DEVICE.on_host(PARAMS) is PARAMS
    for wrap in (ONE_DEVICE.as_on_one_device, ONE_DEVICE.predicting, ONE_DEVICE.staying):
        assert wrap(len) is len
