import jax.numpy as jnp
import numpy as np

from nnjax.layers.routing.places import by_expert, joined, joined_t, rows_at, sorted_gates, spread, spread_t

IDS = jnp.array([[2, 0], [0, 2], [2, 1], [0, 2]], jnp.int32)
AT = by_expert(IDS, 4)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_choices_are_sorted_by_expert_and_then_by_token():
    choices = [(int(e), t, j) for t, row in enumerate(IDS) for j, e in enumerate(row)]
    right = sorted(choices)
    assert [(int(IDS.reshape(-1)[r]), int(r) // 2, int(r) % 2) for r in AT.order] == right
    assert AT.sizes.tolist() == [3, 1, 4, 0]
    for t, row in enumerate(AT.inverse):
        for j, r in enumerate(row):
            assert right[int(r)][1:] == (t, j)


def test_spreading_copies_and_its_transpose_sums():
    x, ct = normal(4, 3), normal(8, 3, seed=1)
    y = spread(x, AT)
    for r, choice in enumerate(AT.order):
        np.testing.assert_array_equal(y[r], x[int(choice) // 2])
    np.testing.assert_allclose((y * ct).sum(), (x * spread_t(ct, AT)).sum(), rtol=1e-5)


def test_joining_weighs_and_sums_and_its_transposes_keep_inner_products():
    y, g, ct = normal(8, 3), normal(4, 2, seed=1), normal(4, 3, seed=2)
    z = joined(y, g, AT)
    right = np.zeros((4, 3))
    for r, choice in enumerate(AT.order):
        right[int(choice) // 2] += g.reshape(-1)[choice] * y[r]
    np.testing.assert_allclose(z, right, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose((z * ct).sum(), (y * joined_t(ct, g, AT)).sum(), rtol=1e-5)
    ct_g = rows_at((y * spread(ct, AT)).sum(1), AT.inverse)
    np.testing.assert_allclose((z * ct).sum(), (g * ct_g).sum(), rtol=1e-5)
    assert sorted_gates(g, AT).tolist() == g.reshape(-1)[AT.order].tolist()


def test_no_token():
    at = by_expert(jnp.zeros((0, 2), jnp.int32), 3)
    assert (at.order.shape, at.inverse.shape, at.sizes.tolist()) == ((0,), (0, 2), [0, 0, 0])
    assert spread_t(jnp.zeros((0, 3)), at).shape == (0, 3)
