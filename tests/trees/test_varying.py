import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import nnjax
from nnjax import ops
from nnjax.distributed import column_dense, make_mesh, replicated, row_dense
from nnjax.trees.varying import communicates, together, varies

KEY = jax.random.key(0)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def _conv(w, x):
    return (ops.conv(x, w["w"], w["b"], stride=2) ** 2).sum()


def _pool(w, x):
    return (ops.max_pool(x * jnp.broadcast_to(w["b"][:2], x.shape), 2) ** 2).sum()


def _attention(w, x):
    """Queries from the data, keys and values from the weights: the same on all devices."""
    k, v = (jnp.broadcast_to(m, (x.shape[0], *m.shape)) for m in (w["k"], w["v"]))
    y = ops.attention(x, k, v, causal=False, mask=jnp.ones(k.shape[:2], bool).at[:, 1].set(False))
    return (y**2).sum() + (ops.attention(x, k[:, :4], v[:, :4]) ** 2).sum()


def _loss(w, x):
    labels = (x[..., 0] > 0).astype(jnp.int32)
    return x.size * ops.linear_cross_entropy(x, w["w"], labels, weights=jnp.ones(labels.shape))


SERIAL = nnjax.serial(nnjax.dense(3, 4), nnjax.lstm(4, 4), nnjax.scan_layers(nnjax.serial(nnjax.dense(4, 4), nnjax.tanh()), 2))
BLOCK = nnjax.serial(nnjax.layer_norm(4), nnjax.attention(4, 2, rope=True), nnjax.dropout(0.5))
PLACES = {
    "conv": (_conv, {"w": normal(3, 3, 2, 3), "b": normal(3)}, normal(8, 5, 4, 2)),
    "max_pool": (_pool, {"b": normal(2)}, normal(8, 4, 4, 2)),
    "attention": (_attention, {"k": normal(4, 1, 3, seed=1), "v": normal(4, 1, 3, seed=2)}, normal(8, 4, 2, 3)),
    "linear_cross_entropy": (_loss, {"w": normal(5, 3)}, normal(8, 2, 3)),
    "serial": (lambda w, x: (nnjax.as_custom_vjp(SERIAL)(w, x) ** 2).sum(), SERIAL.init(KEY), normal(8, 3, 3)),
    "block": (lambda w, x: (nnjax.as_custom_vjp(BLOCK)(w, x) ** 2).sum(), BLOCK.init(KEY), normal(8, 3, 4)),
}  # fmt: skip


def right(f, w, x):
    return f(w, x), *jax.grad(f, (0, 1))(w, x)


def close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("axes", [{"data": 4}, {"data": 2, "shard": 2}], ids=["data", "two axes"])
@pytest.mark.slow
@pytest.mark.in_turn
def test_weights_that_are_the_same_on_all_devices_get_the_whole_gradient(name, axes):
    f, w, x = PLACES[name]
    batch = P(tuple(axes))

    def local(w, x):
        ct_w, ct_x = jax.grad(f, (0, 1))(w, x)
        return jax.lax.psum(f(w, x), tuple(axes)), ct_w, ct_x

    run = jax.shard_map(local, mesh=make_mesh(**axes), in_specs=(P(), batch), out_specs=(P(), P(), batch))
    close(jax.jit(run)(w, x), right(f, w, x))


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.slow
@pytest.mark.in_turn
def test_a_gradient_from_outside_and_without_check_vma_is_the_same(name):
    f, w, x = PLACES[name]
    mesh = make_mesh(data=4)
    whole = jax.shard_map(lambda w, x: jax.lax.psum(f(w, x), "data"), mesh=mesh, in_specs=(P(), P("data")), out_specs=P())
    close(jax.jit(lambda w, x: (whole(w, x), *jax.grad(whole, (0, 1))(w, x)))(w, x), right(f, w, x))

    def local(w, x):
        return jax.lax.psum(jax.grad(f)(w, x), "data")  # without check_vma the caller must sum

    bare = jax.shard_map(local, mesh=mesh, in_specs=(P(), P("data")), out_specs=P(), check_vma=False)
    close(jax.jit(bare)(w, x), jax.grad(f)(w, x))


@pytest.mark.in_turn
def test_weights_over_one_axis_data_over_two_under_vmap_and_scan():
    mesh = make_mesh(data=2, model=2)
    w, x = normal(2, 3, 3, 2, 2), normal(4, 3, 4, 4, 2)  # two weights, one for each place of the axis model

    def one(w, x):
        return (ops.conv(x, w) ** 2).sum()

    def by_vmap(w, x):
        return jax.vmap(jax.grad(lambda w, x: one(w[0], x)), (None, 0))(w, x).sum(0)

    def by_scan(w, x):
        return jax.lax.scan(lambda c, row: (c, jax.grad(lambda w: one(w[0], row))(w)), None, x)[1].sum(0)

    expected = jax.grad(lambda w: one(w[0], x) + one(w[1], x))(w)
    for f in (by_vmap, by_scan):
        run = jax.shard_map(f, mesh=mesh, in_specs=(P("model"), P("data")), out_specs=P("model"))
        close(jax.jit(run)(w, x), expected)


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_key_that_is_the_same_or_each_devices_own_serves_dropout():
    mesh, drop = make_mesh(data=4), nnjax.as_custom_vjp(nnjax.serial(nnjax.dense(2, 64), nnjax.dropout(0.5)))
    w, x = nnjax.dense(2, 64).init(KEY), normal(4, 2)
    local = jax.grad(lambda w, x, key: (drop((w, ()), x, key) ** 2).sum())
    shared = jax.shard_map(lambda w, x: local(w, x, KEY), mesh=mesh, in_specs=(P(), P("data")), out_specs=P())
    close(shared(w, x), jax.tree.map(lambda *gs: sum(gs), *(local(w, row[None], KEY) for row in x)))
    keys = jax.random.split(KEY, 4)
    own = jax.shard_map(lambda w, x, k: local(w, x, k[0]), mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=P())
    close(own(w, x, keys), jax.tree.map(lambda *gs: sum(gs), *(local(w, x, k) for k in keys)))


@pytest.mark.in_turn
def test_layers_of_a_mesh_sum_for_themselves_and_are_called_as_they_are():
    mesh = make_mesh(data=2, model=2)
    one, x = nnjax.serial(nnjax.dense(3, 4), nnjax.dense(4, 2)), normal(4, 3)
    parts = column_dense(3, 4, mesh), row_dense(4, 2, mesh)
    whole = replicated(nnjax.serial(*(part.layer for part in parts)), "data").layer
    f, w, specs = nnjax.as_custom_vjp(whole), one.init(KEY), tuple(part.specs for part in parts)
    seen = []

    def local(w, x):
        seen.append(communicates(whole.fwd, whole.bwd, w, x))
        return jax.grad(lambda w: (f(w, x) ** 2).sum())(w)

    run = jax.shard_map(local, mesh=mesh, in_specs=(specs, P("data")), out_specs=specs)
    close(jax.jit(run)(w, x), jax.grad(lambda w: (one.apply(w, x) ** 2).sum())(w))
    assert seen == [True]


def test_outside_nothing_is_cast_and_anything_but_an_array_stays():
    tree = (jnp.ones(2), None, "a", 3)
    assert together(tree) is tree
    found = []

    def local(x, w):
        x, w, *rest = together((x, w, None, "a", 3))
        found.append((varies(x), varies(w), rest))
        return x + w

    jax.shard_map(local, mesh=make_mesh(data=4), in_specs=(P("data"), P()), out_specs=P("data"))(jnp.ones(4), jnp.ones(1))
    assert found == [({"data"}, {"data"}, [None, "a", 3])]
