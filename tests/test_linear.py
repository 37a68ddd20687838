import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.linear import broadcast, broadcast_t, fold, fold_t


@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ((), (2, 3)),
        ((3,), (3,)),
        ((3,), (4, 3)),
        ((1, 3), (4, 3)),
        ((4, 1), (2, 4, 3)),
        ((1, 1), (1, 1)),
        ((3,), (0, 3)),
        ((1,), (1,)),
    ],
)
def test_broadcast_t_is_the_transpose_that_jax_finds(shape, target):
    rng = np.random.default_rng(0)
    ct = jnp.asarray(rng.standard_normal(target), jnp.float32)
    (expected,) = jax.linear_transpose(lambda x: broadcast(x, target), jnp.zeros(shape, jnp.float32))(ct)
    found = broadcast_t(ct, shape)
    assert found.shape == shape
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_broadcast_refuses_a_shape_that_does_not_fit():
    with pytest.raises(ValueError, match="broadcast"):
        broadcast(jnp.zeros(3), (4, 2))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (0, 3), (2, 4, 3)])
def test_fold_keeps_rows_and_its_transpose_restores_the_shape(shape):
    x = jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)
    rows = fold(x)
    assert rows.shape == (x.size // 3, 3)
    np.testing.assert_array_equal(fold_t(rows, shape), x)
