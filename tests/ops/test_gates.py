import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import ops

GATE, UP = (jnp.asarray(np.random.default_rng(i).standard_normal((3, 5)).astype(np.float32)) * 3 for i in (0, 1))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ops.swiglu, lambda g, u: jax.nn.silu(g) * u),
        (ops.geglu, lambda g, u: jax.nn.gelu(g, approximate=False) * u),
        (lambda g, u: ops.geglu(g, u, approximate=True), lambda g, u: jax.nn.gelu(g) * u),
    ],
    ids=["swiglu", "geglu", "geglu by tanh"],
)
def test_values_and_gradients_are_those_of_jax_nn_and_the_halves_alone_are_kept(ours, theirs):
    for f, g in ((ours, theirs), *((jax.grad(lambda *x, h=h: (h(*x) ** 2).sum(), (0, 1)) for h in (ours, theirs)),)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), jax.jit(f)(GATE, UP), g(GATE, UP))
    _, pull = jax.vjp(ours, GATE, UP)
    assert [leaf.shape for leaf in jax.tree.leaves(pull)] == [GATE.shape, UP.shape]


@pytest.mark.in_turn
def test_they_pass_an_audit_and_refuse_what_does_not_fit():
    nnjax.audit(lambda g, u: (ops.swiglu(g, u) * ops.geglu(u, g)).sum(), GATE[:2, :3], UP[:2, :3]).raise_if_failed()
    with pytest.raises(ValueError, match=r"up must have shape"):
        ops.swiglu(GATE, UP[:2])
    with pytest.raises(TypeError, match="real floating point"):
        ops.geglu(jnp.arange(3), jnp.arange(3))
    with pytest.raises((TypeError, ValueError), match="approximate"):
        ops.geglu(GATE, UP, approximate="tanh")
