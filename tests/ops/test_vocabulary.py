import jax
import jax.numpy as jnp
import numpy as np

import nnjax
from nnjax import ops


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def test_linear_cross_entropy_serves_anyones_gradient():
    h, w, labels, weights = normal(6, 4), normal(9, 4), jnp.arange(6, dtype=jnp.int32), jnp.arange(6, dtype=jnp.float32)
    loss = nnjax.softmax_cross_entropy()
    for more in ((), (weights,)):
        theirs = jax.value_and_grad(lambda h, w, more=more: loss.apply((), (h @ w.T, labels, *more)), (0, 1))(h, w)
        given = {"weights": more[0]} if more else {}
        ours = jax.value_and_grad(lambda h, w, given=given: ops.linear_cross_entropy(h, w, labels, **given), (0, 1))(h, w)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, theirs)
