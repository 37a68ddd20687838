import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.fast.maximum import first_maximum, seen, seen_t

X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 7, 5, 3)), jnp.float32)


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("i", [(0, 0), (1, 1), (2, 0)])
def test_seen_t_is_the_transpose_of_seen(i, stride):
    y = seen(X, i, (3, 2), stride)
    ct = jnp.asarray(np.random.default_rng(1).standard_normal(y.shape), jnp.float32)
    np.testing.assert_array_equal(y[:, 1, 0], X[:, stride[0] + i[0], i[1]])
    np.testing.assert_allclose(jnp.vdot(ct, y), jnp.vdot(seen_t(ct, i, X.shape, stride), X), rtol=1e-5)


def test_the_first_of_equal_entries_wins_and_nan_stays():
    parts = [jnp.array(p) for p in ([1.0, 0.0, jnp.nan, -jnp.inf], [1.0, 2.0, 5.0, -jnp.inf], [0.0, 2.0, 9.0, -jnp.inf])]
    y, where = first_maximum(parts)
    np.testing.assert_array_equal(y, [1.0, 2.0, jnp.nan, -jnp.inf])
    np.testing.assert_array_equal(where, [0, 1, 0, 0])
    assert where.dtype == jnp.int8


def test_where_all_are_minus_infinity_the_number_that_is_given_counts():
    parts = [jnp.array([[-jnp.inf], [-jnp.inf], [1.0]])] * 2
    y, where = first_maximum(parts, np.array([[1], [0], [0]]))
    np.testing.assert_array_equal(where, [[1], [0], [0]])
    np.testing.assert_array_equal(y, parts[0])


def test_entries_may_lie_apart():
    y = seen(X, (1, 1), (2, 2), (2, 1), (3, 2))
    np.testing.assert_array_equal(y, X[:, 3::2, 2:][:, :2])
    ct = jnp.asarray(np.random.default_rng(1).standard_normal(y.shape), jnp.float32)
    np.testing.assert_allclose(jnp.vdot(ct, y), jnp.vdot(seen_t(ct, (1, 1), X.shape, (2, 1), (3, 2)), X), rtol=1e-5)
