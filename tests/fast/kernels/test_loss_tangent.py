import jax
import jax.numpy as jnp
import numpy as np

from nnjax.fast.kernels.loss_tangent import tangent
from nnjax.losses.fused import gradient_of_rows


def test_tangents_are_those_of_the_plain_spelling(drawn_rows, x64):
    h, w, labels, share = drawn_rows(dtype=jnp.float64)
    dot_h, dot_w, _, dot_share = drawn_rows(dtype=jnp.float64, seed=1)
    labels = labels.at[2].set(-1)  # with an unknown label

    @jax.jit
    def both(h, w, share):
        def f(h, w, share):
            return gradient_of_rows(h, w, labels, share)

        right = jax.jvp(f, (h, w, share), (dot_h, dot_w, dot_share))[1]
        return right, tangent(h, w, labels, share, dot_h, dot_w, dot_share)

    for a, b in zip(*both(h, w, share), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-11, atol=1e-11)


def test_dtypes_are_those_of_the_spelling(drawn_rows):
    h, w, labels, share = drawn_rows(dtype=jnp.bfloat16)
    share = share.astype(jnp.float32)
    found = jax.eval_shape(tangent, h, w, labels, share, h, w, share)
    for a, b in zip(found, jax.eval_shape(gradient_of_rows, h, w, labels, share), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
