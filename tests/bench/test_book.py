import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import nielsen
from nnjax.bench.book import epoch_seconds, numpy_backprop, numpy_epoch


@pytest.mark.in_turn
def test_the_loop_computes_what_nielsen_computes():
    params = nielsen.init(jax.random.key(0), [5, 4, 3])
    rng = np.random.default_rng(0)
    x, y = rng.random((6, 5)), rng.random((6, 3))
    w, b = [np.array(v, np.float64) for v in params.w], [np.array(v, np.float64)[:, None] for v in params.b]
    nabla_w, nabla_b = numpy_backprop(w, b, x[0][:, None], y[0][:, None])
    ours = nielsen.backprop(params, jnp.asarray(x[0], jnp.float32), jnp.asarray(y[0], jnp.float32))
    for a, c in zip(ours.w + ours.b, nabla_w + nabla_b):
        np.testing.assert_allclose(a, c.reshape(a.shape), rtol=1e-4, atol=1e-6)
    new_w, _ = numpy_epoch(w, b, x[:, :, None], y[:, :, None], 3.0, 6, np.arange(6))
    _, grads = nielsen.value_and_grad()(params, jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
    np.testing.assert_allclose(new_w[0], params.w[0] - 3.0 * grads.w[0], rtol=1e-4, atol=1e-5)


def test_both_epochs_are_timed():
    assert all(t > 0 for t in epoch_seconds([5, 4, 3], 40, 3.0, 10, repeats=1))
