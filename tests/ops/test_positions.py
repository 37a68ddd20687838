import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import ops

Q, K, V = (jnp.asarray(np.random.default_rng(i).standard_normal((2, 5, 3, 4)).astype(np.float32)) for i in range(3))
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}


@pytest.mark.in_turn
def test_with_attention_it_is_the_layer_with_rope():
    layer = nnjax.attention(12, 3, rope=True, rope_theta=50.0, rope_scaling=YARN, bias=False)
    params, x = layer.init(jax.random.key(0)), Q.reshape(2, 5, 12)

    @jax.jit
    def by_ops(params, x):
        q, k, v = (part.reshape(2, 5, 3, 4) for part in jnp.split(x @ params.qkv.w, 3, -1))
        q, k = (ops.rotary(a, theta=50.0, scaling=YARN) for a in (q, k))
        return ops.attention(q, k, v).reshape(2, 5, 12) @ params.out.w

    np.testing.assert_allclose(by_ops(params, x), layer.apply(params, x), atol=1e-5)
    ours = jax.grad(lambda x: (by_ops(params, x) ** 2).sum())(x)
    np.testing.assert_allclose(ours, jax.grad(lambda x: (layer.apply(params, x) ** 2).sum())(x), atol=1e-4)


@pytest.mark.in_turn
def test_it_passes_a_check_and_keeps_no_floating_point():
    nnjax.audit(lambda q: ops.rotary(q, scaling=YARN), Q[:1, :3, :1]).raise_if_failed()
    _, pull = jax.vjp(ops.rotary, Q)
    assert not [leaf for leaf in jax.tree.leaves(pull) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def test_scores_depend_on_the_distance_of_positions_alone():
    at = jnp.arange(5, dtype=jnp.int32)
    here, there = ((ops.rotary(Q, at + n) * ops.rotary(K, at + n + 2)).sum(-1) for n in (0, 40))
    np.testing.assert_allclose(here, there, atol=1e-4)
    np.testing.assert_allclose(ops.rotary(Q, jnp.zeros(5, jnp.int32)), Q)


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((Q[0, 0],), {}, ValueError, r"shape \(..., positions, heads, d\)"),
        ((Q[..., :3],), {}, ValueError, r"even number, got 3"),
        ((Q, jnp.arange(4)), {}, ValueError, r"positions must have shape \(5,\)"),
        ((Q, jnp.arange(5.0)), {}, TypeError, r"positions must be integers"),
        ((Q.astype(jnp.int32),), {}, TypeError, r"x must be real floating point"),
        ((Q,), {"theta": -1.0}, ValueError, r"rope_theta must be"),
        ((Q,), {"scaling": {"rope_type": "ntk"}}, ValueError, r"unknown rope_type of ops\.rotary 'ntk'"),
    ],
)
def test_what_does_not_fit_is_refused(args, options, error, message):
    with pytest.raises(error, match=message):
        ops.rotary(*args, **options)
