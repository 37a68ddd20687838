import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from nnjax.check.auditing.inside import Inside

SEEN = []


def local(x, w):
    SEEN.append(Inside.now((x, w, 3)))
    return x * w[None]


def run(**how):
    SEEN.clear()
    mesh = jax.make_mesh((2, 4), ("rows", "columns"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    jax.shard_map(local, mesh=mesh, in_specs=(P("columns"), P()), out_specs=P("columns"), **how)(jnp.ones((8, 3)), jnp.ones(3))
    return SEEN[0]


def test_where_a_call_is_made():
    assert Inside.now((jnp.ones(3),)) is None
    found = run(axis_names={"rows", "columns"})
    assert dict(found.mesh.shape) == {"rows": 2, "columns": 4}
    assert found.varying == (("columns",), (), ())
    assert found.stacked(0, (2, 3)) == (4, 2, 3)
    assert run(check_vma=False) is None


def test_a_function_is_called_there_again():
    found = run()
    x, w = np.arange(24.0, dtype=np.float32).reshape(4, 2, 3), np.arange(3, dtype=np.float32)

    def f(x, w, n):
        return jax.lax.psum(n * x * w[None], "columns")

    y = found.whole(f)(x, w, 3)
    assert y.shape == (2, 4, 2, 3)
    for part in y.reshape(8, 2, 3):
        np.testing.assert_allclose(part, 3 * (x * w).sum(0))
