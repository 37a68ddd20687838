import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from nnjax.fast.by_rows import in_chunks, zeros_like


def both(each, whole):
    x, n = each
    return (x @ whole, n), ((x * x).sum(0), x.sum())


@pytest.mark.parametrize("size", [1, 3, 5, 7, 8])
@pytest.mark.parametrize("rows", [0, 1, 7])
@pytest.mark.repeats
def test_any_number_at_a_time_gives_the_same(rows, size):
    x, n, w = jnp.arange(3.0 * rows).reshape(rows, 3), jnp.arange(rows), jnp.ones((3, 2))
    found = in_chunks(both, (x, n), w, (jnp.zeros(3), jnp.zeros(())), size, jnp.float32)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b), found, both((x, n), w))


def test_zeros_come_of_anything():
    x = jnp.array([1.0, jnp.inf, -jnp.inf, jnp.nan], jnp.bfloat16)
    found = zeros_like(x, jnp.float32)
    assert found.dtype == jnp.float32
    assert not found.any()


@pytest.mark.parametrize("checked", [True, False])
def test_each_device_has_its_own_rows_and_sums(checked):
    x, n, w = jnp.arange(18.0).reshape(6, 3), jnp.arange(6), jnp.ones((3, 2))

    def run(x, n, w):
        w = jax.lax.pcast(w, "data", to="varying") if checked else w
        rows, sums = in_chunks(both, (x, n), w, (x[0], x[0, 0]), 2, jnp.float32)
        return rows, jax.tree.map(lambda s: s[None], sums)

    mesh, data = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)), P("data")
    f = jax.shard_map(run, mesh=mesh, in_specs=(data, data, P()), out_specs=data, check_vma=checked)
    rows, sums = jax.jit(f)(x, n, w)
    halves = [both((x[s], n[s]), w)[1] for s in (slice(0, 3), slice(3, 6))]
    jax.tree.map(lambda a, *b: np.testing.assert_allclose(a, jnp.stack(b)), sums, *halves)
    np.testing.assert_allclose(rows[0], x @ w)
