import jax.numpy as jnp
import numpy as np

from nnjax import feedback


def test_transpose_is_the_adjoint():
    rng = np.random.default_rng(0)
    w, a, delta = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((3, 5), (5,), (3,)))
    back = feedback.transpose(w)
    assert back.shape == (5, 3)
    np.testing.assert_allclose(jnp.vdot(delta, w @ a), jnp.vdot(back @ delta, a), rtol=1e-5)
