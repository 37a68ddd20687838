"""Each transpose by its definition: <ct, A x> summed over devices equals <A_t ct, x>, and jax.vjp gives the same."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from nnjax.distributed import collectives as c

N = 4
DIMS = [1, None, 0]


@pytest.fixture
def mesh():
    return jax.make_mesh((N,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))


def on(mesh, f, specs, out):
    return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=out))


def random(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def inner(a, b):
    return sum(float(jnp.vdot(u, v)) for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


VARYING, SAME = P("d"), P()


def tree_of(s):
    return random(s, 2, 12), random(s + 1, 3), random(s + 2, 8, 2)


CASES = {  # forward, transpose, x and its spec, ct_y and its spec
    "copy_to": (lambda x: c.copy_to(x, "d")[None], lambda ct: c.copy_to_t(ct[0], "d"),
                random(0, 3), SAME, random(1, N, 3), VARYING),
    "reduce_from": (lambda x: c.reduce_from(x[0], "d"), lambda ct: c.reduce_from_t(ct, "d")[None],
                    random(0, N, 3), VARYING, random(1, 3), SAME),
    "gather": (lambda x: jax.tree.map(lambda a: a[None], c.gather(x, "d", DIMS)),
               lambda ct: c.gather_t(jax.tree.map(lambda a: a[0], ct), "d", DIMS),
               tree_of(0), (P(None, "d"), P(), P("d")), jax.tree.map(lambda a: random(9, N, *a.shape), tree_of(0)), VARYING),
    "exchange": (lambda x: c.exchange(x[0], "d")[None], lambda ct: c.exchange_t(ct[0], "d")[None],
                 random(2, N, N, 3), VARYING, random(3, N, N, 3), VARYING),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_collective_is_above_its_transpose(name, mesh):
    forward, transpose, x, x_spec, ct, ct_spec = CASES[name]
    y = on(mesh, forward, (x_spec,), ct_spec)(x)
    assert jax.tree.map(jnp.shape, y) == jax.tree.map(jnp.shape, ct)
    ct_x = on(mesh, transpose, (ct_spec,), x_spec)(ct)
    np.testing.assert_allclose(inner(ct, y), inner(ct_x, x), rtol=1e-5)
    by_jax = jax.vjp(on(mesh, forward, (x_spec,), ct_spec), x)[1](ct)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ct_x, by_jax)


def test_gather_puts_the_shards_in_order(mesh):
    x = tree_of(0)
    y = on(mesh, lambda x: jax.tree.map(lambda a: a[None], c.gather(x, "d", DIMS)), (CASES["gather"][3],), VARYING)(x)
    for device in range(N):
        for a, b in zip(y, x):
            np.testing.assert_array_equal(a[device], b)


def test_exchange_transposes_the_blocks_of_the_devices(mesh):
    x = random(0, N, N, 3)
    y = on(mesh, lambda x: c.exchange(x[0], "d")[None], (VARYING,), VARYING)(x)
    np.testing.assert_array_equal(y, x.swapaxes(0, 1))


@pytest.mark.parametrize("n", [1, 100, 128, 300])
def test_shares_that_are_padded_to_rows_are_the_same_shares(n, mesh):
    x = jnp.arange(N * n, dtype=jnp.float32)
    y = on(mesh, lambda x: c._in_rows(x, "d")[None], (P("d"),), P("d"))(x)
    np.testing.assert_array_equal(y, np.tile(np.reshape(x, (N, n)), (N, 1, 1)))


@pytest.mark.parametrize(("call", "kinds"), [
    (lambda x: c.copy_to_t(x, "d"), {"all-reduce": 1}),
    (lambda x: jax.tree.map(jnp.sum, c.gather(x, "d", [0, 0])), {"all-gather": 1}),
    (lambda x: c.gather_t(x, "d", [0, 0]), {"reduce-scatter": 1}),
])  # fmt: skip
def test_a_tree_is_sent_in_one_message(call, kinds, mesh):
    from nnjax.bench.text.cost import collectives_of

    f = on(mesh, call, ((P("d"), P("d")),), P("d") if "reduce-scatter" in kinds or "all-gather" in kinds else P())
    if "all-gather" in kinds:
        f = on(mesh, lambda x: jax.tree.map(lambda a: a[None], call(x)), ((P("d"), P("d")),), P("d"))
    compiled = f.lower((jnp.ones((16, 3)), jnp.ones((16,)))).compile()
    found = collectives_of(compiled.as_text())
    assert {kind: len([m for m in found if m.kind == kind]) for kind in {m.kind for m in found}} == kinds


@pytest.mark.parametrize("call", [
    c.copy_to, c.copy_to_t, c.reduce_from, partial(c.gather, dims=[0]), partial(c.gather_t, dims=[0]), c.exchange,
])  # fmt: skip
def test_without_check_vma_they_are_refused(call, mesh):
    f = jax.shard_map(lambda x: call(x, "d"), mesh=mesh, in_specs=P("d"), out_specs=P("d"), check_vma=False)
    with pytest.raises(ValueError, match=r"check_vma=True, got False, .* wrong by the size of the axis 'd'; leave"):
        jax.jit(f)(jnp.ones((16, 4)))
    with pytest.raises(ValueError, match=r"the mesh axis 'd' is missing here; call it inside jax.shard_map"):
        call(jnp.ones(4), "d")
