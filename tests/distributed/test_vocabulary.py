import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import nnjax
from nnjax.distributed import make_mesh, vocabulary_cross_entropy, vocabulary_embedding

KEY = jax.random.key(0)
VOCAB, N = 12, 5
ROWS = P("model", None)


def close(found, right):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, right)


@pytest.mark.in_turn
def test_lookups_with_repeated_ids_add_up_and_an_unknown_id_is_nan():
    mesh = make_mesh(model=4)
    sharded, one = vocabulary_embedding(VOCAB, N, mesh), nnjax.embedding(VOCAB, N)
    params, ids = one.init(KEY), jnp.array([[0, 3, 3], [11, 3, 6]], jnp.int32)
    ct_y = jax.random.normal(jax.random.key(1), (2, 3, N))

    def run(params, ids, ct_y):
        y, residuals = sharded.layer.fwd(params, ids)
        return y, sharded.layer.bwd(residuals, ct_y)[0]

    f = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(sharded.specs, P(), P()), out_specs=(P(), sharded.specs)))
    y, residuals = one.fwd(params, ids)
    close(f(params, ids, ct_y), (y, one.bwd(residuals, ct_y)[0]))
    y, ct = f(params, jnp.array([[0, 12, -1]], jnp.int32), ct_y[:1])
    assert jnp.isnan(y[0, 1:]).all()
    np.testing.assert_array_equal(ct.table[0], ct_y[0, 0])
    assert not ct.table[1:].any()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("large", [1.0, 200.0])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_the_loss_over_a_cut_vocabulary_is_the_whole_one(weighted, large):
    mesh = make_mesh(model=4)
    loss, one = vocabulary_cross_entropy(), nnjax.linear_cross_entropy()
    h, w = large * jax.random.normal(KEY, (2, 7, N)), jax.random.normal(jax.random.key(1), (VOCAB, N))
    labels = jax.random.randint(jax.random.key(2), (2, 7), 0, VOCAB, jnp.int32).at[1, 2:4].set(-100)
    weights = (jax.random.uniform(jax.random.key(3), (2, 7)).at[0].set(0),) if weighted else ()
    w_spec = ((P(), ROWS), P(), *(P() for _ in weights))

    def run(x):
        value, residuals = loss.fwd((), x)
        ct = loss.bwd(residuals, jnp.full_like(value, 3))[1]
        return value, loss.apply((), x), ct[0], *ct[2:]

    out = (P(), P(), (P(), ROWS), *(P() for _ in weights))
    value, applied, *found = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(w_spec,), out_specs=out))(
        ((h, w), labels, *weights)
    )
    right_value, residuals = one.fwd((), ((h, w), labels, *weights))
    ct = one.bwd(residuals, jnp.full_like(right_value, 3))[1]
    close((value, applied, *found), (right_value, right_value, ct[0], *ct[2:]))


def test_an_unknown_label_is_nan_and_has_no_gradient():
    mesh = make_mesh(model=4)
    loss = vocabulary_cross_entropy()
    h, w = jax.random.normal(KEY, (2, N)), jax.random.normal(jax.random.key(1), (VOCAB, N))

    def run(x):
        value, residuals = loss.fwd((), x)
        return value, loss.bwd(residuals, jnp.ones_like(value))[1][0]

    f = jax.shard_map(run, mesh=mesh, in_specs=(((P(), ROWS), P()),), out_specs=(P(), (P(), ROWS)))
    value, (ct_h, ct_w) = jax.jit(f)(((h, w), jnp.array([3, VOCAB], jnp.int32)))
    assert jnp.isnan(value)
    assert not ct_h[1].any()
    assert jnp.isfinite(ct_w).all()
