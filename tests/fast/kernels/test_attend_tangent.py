import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.fast.kernels.attend_tangent import bwd_tangent, fwd_tangent
from nnjax.layers.attend import attend_bwd, attend_fwd


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.in_turn
def test_tangents_are_those_of_the_plain_pair(drawn, x64, causal):
    primals, tangents = drawn(dtype=jnp.float64), drawn(dtype=jnp.float64, seed=1)
    ct, dot_ct = (drawn(dtype=jnp.float64, seed=n)[0] for n in (2, 3))

    def fwd(q, k, v):
        y, (*_, log_z) = attend_fwd(q, k, v, None, causal=causal)
        return y, log_z

    def bwd(q, k, v, ct):
        return attend_bwd(attend_fwd(q, k, v, None, causal=causal)[1], ct, causal=causal)

    @jax.jit
    def both(primals, tangents, ct, dot_ct):
        (_, log_z), right = jax.jvp(fwd, primals, tangents)
        primals_, tangents_ = (*primals, ct), (*tangents, dot_ct)
        right_back = jax.jvp(bwd, primals_, tangents_)[1]
        return (right, right_back), (
            fwd_tangent(primals, log_z, tangents, causal), bwd_tangent(primals_, log_z, tangents_, causal),
        )  # fmt: skip

    right, found = both(primals, tangents, ct, dot_ct)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.in_turn
def test_what_a_causal_query_does_not_see_has_no_effect(drawn):
    q, k, v = drawn(s=5)
    tangents, ct = drawn(s=5, seed=1), drawn(s=5, seed=2)[0]

    @jax.jit
    def found(q, k, v, log_z):
        primals = (q, k, v)
        return *fwd_tangent(primals, log_z, tangents, True), bwd_tangent((*primals, ct), log_z, (*tangents, ct), True)[0]

    log_z = attend_fwd(q, k, v, None, causal=True)[1][-1]
    right = found(q, k, v, log_z)
    spoilt = found(q, k.at[..., 4, :].set(jnp.nan), v.at[..., 4, :].set(jnp.inf), log_z.at[..., 4].set(jnp.nan))
    for a, b in zip(spoilt, right, strict=True):
        np.testing.assert_array_equal(a[:, :, :, :4], b[:, :, :, :4])
        assert jnp.isnan(a[:, :, :, 4]).all()
