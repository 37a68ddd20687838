import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.fast import attend_finite

Q, K, V = (
    jnp.arange(n, dtype=jnp.float32).reshape(shape) for n, shape in ((8, (1, 1, 1, 4, 2)), (8, (1, 1, 4, 2)), (8, (1, 1, 4, 2)))
)


@pytest.mark.in_turn
def test_a_spelling_gets_only_finite_numbers_and_queries_that_see_others_are_nan():
    met = {}

    def spelled(q, k, v, keep, *, causal):
        met.update(q=q, k=k, v=v)
        return q, q[..., 0]

    k = K.at[0, 0, 2, 0].set(jnp.nan)
    y, log_z = attend_finite.attend_fwd(Q, k, V, None, causal=True, spelled=spelled)
    assert all(jnp.isfinite(x).all() for x in met.values())
    np.testing.assert_allclose(met["q"], Q / 2**0.5, rtol=1e-6)
    np.testing.assert_array_equal(jnp.isnan(log_z)[0, 0, 0], [False, False, True, True])
    np.testing.assert_array_equal(jnp.isnan(y).any(-1)[0, 0, 0], [False, False, True, True])


def test_without_a_causal_order_numbers_are_handed_on_as_they_are():
    k = K.at[0, 0, 2, 0].set(jnp.nan)
    seen = attend_finite.attend_fwd(Q, k, V, None, causal=False, spelled=lambda q, k, v, keep, *, causal: (k, v))
    assert jnp.isnan(seen[0][0, 0, 2, 0])


def test_the_way_back_scales_the_queries_cotangent_and_spoils_what_a_spoilt_query_saw():
    def spelled(q, k, v, keep, log_z, delta, ct_y, *, causal):
        assert jnp.isfinite(log_z).all()
        return jnp.ones_like(q), jnp.ones_like(k), jnp.ones_like(v)

    log_z = jnp.zeros((1, 1, 1, 4)).at[..., 1].set(jnp.nan)
    cts = attend_finite.attend_bwd((Q, K, V, None, Q, log_z), Q, causal=True, spelled=spelled)
    np.testing.assert_allclose(cts[0][0, 0, 0, 0], 2**-0.5, rtol=1e-6)
    np.testing.assert_array_equal(jnp.isnan(cts[1]).all(-1)[0, 0], [True, True, False, False])
