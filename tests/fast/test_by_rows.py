import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.fast.by_rows import in_chunks, zeros_like


def both(each, whole):
    x, n = each
    return (x @ whole, n), ((x * x).sum(0), x.sum())


@pytest.mark.parametrize("size", [1, 3, 5, 7, 8])
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_any_number_at_a_time_gives_the_same(rows, size):
    x, n, w = jnp.arange(3.0 * rows).reshape(rows, 3), jnp.arange(rows), jnp.ones((3, 2))
    found = in_chunks(both, (x, n), w, (jnp.zeros(3), jnp.zeros(())), size, jnp.float32)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b), found, both((x, n), w))


def test_zeros_come_of_anything():
    x = jnp.array([1.0, jnp.inf, -jnp.inf, jnp.nan], jnp.bfloat16)
    found = zeros_like(x, jnp.float32)
    assert found.dtype == jnp.float32
    assert not found.any()
