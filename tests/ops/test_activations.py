import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import ops

X = jnp.asarray(np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)) * 3


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ops.gelu, lambda x: jax.nn.gelu(x, approximate=False)),
        (lambda x: ops.gelu(x, approximate=True), jax.nn.gelu),
        (ops.silu, jax.nn.silu),
    ],
    ids=["gelu", "gelu by tanh", "silu"],
)
def test_values_and_gradients_are_those_of_jax_nn_and_the_input_alone_is_kept(ours, theirs):
    for f, g in ((ours, theirs), (jax.grad(lambda x: (ours(x) ** 2).sum()), jax.grad(lambda x: (theirs(x) ** 2).sum()))):
        np.testing.assert_allclose(jax.jit(f)(X), g(X), atol=2e-6)
    _, vjp = jax.vjp(ours, X)
    assert [leaf.shape for leaf in jax.tree.leaves(vjp)] == [X.shape]


@pytest.mark.in_turn
def test_they_pass_an_audit_and_refuse_integers():
    nnjax.audit(lambda x: (ops.gelu(x) * ops.silu(x)).sum(), X[:2, :3]).raise_if_failed()
    with pytest.raises(TypeError, match="real floating point"):
        ops.silu(jnp.arange(3))
    with pytest.raises((TypeError, ValueError), match="approximate"):
        ops.gelu(X, approximate="tanh")
