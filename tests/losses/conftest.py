"""By hand and by jax.grad, at inputs whose leaves may be integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="session")
def by_hand():
    """by_hand(loss, x, ct=None) -> (value, cotangents of the leaves of x, those that are None left out), jitted."""

    def run(loss, x, ct=None):
        def f(x, ct):
            value, residuals = loss.fwd((), x)
            return value, jax.tree.leaves(loss.bwd(residuals, jnp.ones_like(value) if ct is None else ct)[1])

        return jax.jit(f)(x, ct)

    return run


@pytest.fixture(scope="session")
def by_jax():
    """by_jax(f, x, ct=None) -> (value, cotangents of the floating leaves of x) of a function f by jax.vjp."""

    def run(f, x, ct=None):
        leaves, tree = jax.tree.flatten(x)
        floats = [i for i, a in enumerate(leaves) if jnp.issubdtype(a.dtype, jnp.floating)]

        def of(values):
            filled = list(leaves)
            for i, v in zip(floats, values):
                filled[i] = v
            return f(jax.tree.unflatten(tree, filled))

        def both(values, ct):
            value, pull = jax.vjp(of, values)
            return value, pull(jnp.ones_like(value) if ct is None else ct)[0]

        return jax.jit(both)([leaves[i] for i in floats], ct)

    return run


@pytest.fixture(scope="session")
def close():
    """close(found, expected, tol): trees of arrays are equal up to tol times their largest finite entry."""

    def check(found, expected, tol=1e-10):
        assert len(jax.tree.leaves(found)) == len(jax.tree.leaves(expected))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
            a, b = (np.asarray(v, np.float64) for v in (a, b))
            size = np.max(np.abs(b), initial=1, where=np.isfinite(b))
            np.testing.assert_allclose(a, b, rtol=0, atol=tol * size)

    return check
