import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.layers.routing.experts import Experts, activated, activated_bwd, experts_bwd, experts_fwd
from nnjax.layers.routing.ragged import FAST, PLAIN


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize("activation", ["swiglu", "gelu"])
def test_the_activation_and_its_backward(activation, x64):
    z = 2 * normal(5, 6)

    def plain(z):
        return jax.nn.gelu(z, approximate=True) if activation == "gelu" else jax.nn.silu(z[:, :3]) * z[:, 3:]

    ct = normal(5, 6 if activation == "gelu" else 3, seed=1)

    @jax.jit
    def both(z, ct):
        right, pull = jax.vjp(plain, z)
        return (activated(z, activation), activated_bwd(z, ct, activation)), (right, *pull(ct))

    for a, b in zip(*both(z, ct)):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("by", [PLAIN, FAST], ids=["plain", "fast"])
@pytest.mark.in_turn
def test_each_row_goes_through_its_own_expert_and_the_gradient_of_the_gates_needs_no_output(by, x64):
    params, x = Experts(normal(3, 4, 6), normal(3, 3, 4, seed=1)), normal(6, 4, seed=2)
    sizes, of = jnp.array([2, 0, 4], jnp.int32), [0, 0, 2, 2, 2, 2]
    gates, ct = normal(6, seed=3), normal(6, 4, seed=4)

    def plain(params, x, gates):
        rows = [g * activated(r[None] @ params.up[e], "swiglu") @ params.down[e] for r, e, g in zip(x, of, gates)]
        return jnp.concatenate(rows)

    @jax.jit
    def by_rows(params, x, gates, ct):
        y, pull = jax.vjp(plain, params, x, gates)
        return y, pull(ct)

    right, theirs = by_rows(params, x, gates, ct)

    def pair(params, x, gates, ct):
        y, z = experts_fwd(params, x, sizes, "swiglu", by)
        return y, *experts_bwd(params, x, z, gates, ct, sizes, "swiglu", by)

    y, *found = jax.jit(pair)(params, x, gates, ct)
    np.testing.assert_allclose(np.asarray(gates)[:, None] * np.asarray(y), right, rtol=1e-10)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)
