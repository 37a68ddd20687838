"""Rows of four devices to the experts of four devices and back, against the same done with lists."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from nnjax.distributed.routing.dispatch import dispatch, dispatch_t, routes_of

N, ROWS, EXPERTS = 4, 5, 8


@pytest.fixture
def mesh():
    return jax.make_mesh((N,), ("e",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:N])


def sizes_of(how):
    """int32 (devices, experts): how many rows of each device each expert gets."""
    if how == "all to one":
        return np.eye(EXPERTS, dtype=np.int32)[np.full(N, 3)] * ROWS
    if how == "all to another":
        return np.eye(EXPERTS, dtype=np.int32)[np.array([6, 4, 1, 0])] * ROWS
    rng = np.random.default_rng(0)
    return np.stack([np.bincount(rng.integers(0, EXPERTS, ROWS), minlength=EXPERTS) for _ in range(N)]).astype(np.int32)


def on(mesh, f, *args):
    return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=P("e"), out_specs=P("e")))(*args)


def there_and_back(sizes, x, ct):
    routes = routes_of(sizes[0], ROWS, "e")
    y = dispatch(x[0], routes, "e")
    return y[None], dispatch_t(ct[0], routes, "e")[None], dispatch_t(y, routes, "e")[None], routes.at.sizes[None]


@pytest.mark.parametrize("how", ["any", "all to one", "all to another"])
def test_every_row_reaches_its_expert_and_the_transpose_brings_it_back(how, mesh):
    sizes, rng = sizes_of(how), np.random.default_rng(1)
    x, ct = (rng.standard_normal(s).astype(np.float32) for s in ((N, ROWS, 3), (N, N * ROWS, 3)))
    y, ct_x, back, got = on(mesh, there_and_back, sizes, x, ct)
    of = [np.repeat(np.arange(EXPERTS), sizes[d]) for d in range(N)]
    for d in range(N):
        own = range(d * EXPERTS // N, (d + 1) * EXPERTS // N)
        right = [x[s, r] for e in own for s in range(N) for r in range(ROWS) if of[s][r] == e]
        np.testing.assert_array_equal(y[d, : len(right)], np.reshape(right, (-1, 3)))
        assert not y[d, len(right) :].any()
        assert got[d].tolist() == sizes[:, list(own)].sum(0).tolist()
    np.testing.assert_array_equal(back, x)
    np.testing.assert_allclose((y * ct).sum(), (x * ct_x).sum(), rtol=1e-5)


def test_jax_finds_the_same_transpose(mesh):
    sizes, rng = sizes_of("any"), np.random.default_rng(1)
    x, ct = (rng.standard_normal(s).astype(np.float32) for s in ((N, ROWS, 3), (N, N * ROWS, 3)))

    def forward(x):
        return on(mesh, lambda sizes, x: dispatch(x[0], routes_of(sizes[0], ROWS, "e"), "e")[None], sizes, x)

    np.testing.assert_allclose(jax.vjp(forward, x)[1](jnp.asarray(ct))[0], on(mesh, there_and_back, sizes, x, ct)[1], rtol=1e-6)
