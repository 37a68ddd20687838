import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import ops


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.in_turn
def test_ragged_dot_and_its_gradients_in_float64():
    with jax.enable_x64(True):
        x, w, sizes, of = normal(6, 3), normal(3, 3, 2, seed=1), jnp.array([4, 0, 2]), [0, 0, 0, 0, 2, 2]
        ct = normal(6, 2, seed=2)
        y, pull = jax.vjp(lambda x, w: ops.ragged_dot(x, w, sizes), x, w)
        right, theirs = jax.vjp(lambda x, w: jnp.stack([r @ w[e] for r, e in zip(x, of)]), x, w)
        np.testing.assert_allclose(y, right, rtol=1e-12)
        for a, b in zip(pull(ct), theirs(ct)):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@pytest.mark.in_turn
def test_ragged_dot_passes_the_check_under_every_transform():
    sizes = jnp.array([4, 0, 2], jnp.int32)

    def by_rows(x, w):
        own = w[jnp.array([0, 0, 0, 0, 2, 2], jnp.int32)]
        return jnp.einsum("rk,rkn->rn", x, own)

    x, w = (normal(*s, seed=i).astype(jnp.float32) for i, s in enumerate(((6, 3), (3, 3, 2))))
    report = nnjax.check_vjp(lambda x, w: ops.ragged_dot(x, w, sizes), x, w, reference=by_rows)
    report.raise_if_failed()


@pytest.mark.parametrize("losses", [{}, {"balance": 0.5, "z": 0.1}], ids=["bare", "losses"])
@pytest.mark.in_turn
def test_mixture_of_experts_has_the_value_and_gradients_of_its_layer(losses):
    layer = nnjax.mixture_of_experts(4, 3, 3, 2, **losses)
    params, x = layer.init(jax.random.key(0)), normal(2, 5, 4).astype(jnp.float32)

    def by_ops(params, x):
        return sum(a.sum() for a in jax.tree.leaves(ops.mixture_of_experts(x, *params, top_k=2, **losses)))

    def by_layer(params, x):
        return sum(a.sum() for a in jax.tree.leaves(layer.apply(params, x)))

    ours, theirs = (jax.jit(jax.value_and_grad(f, (0, 1)))(params, x) for f in (by_ops, by_layer))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x, w: ops.ragged_dot(x, w, jnp.ones(2)), TypeError, "sizes must be integers"),
        (lambda x, w: ops.ragged_dot(x, w, jnp.ones(3, jnp.int32)), ValueError, r"\(groups,\).*int32 \(3,\)"),
        (lambda x, w: ops.ragged_dot(x, w.mT, jnp.ones(2, jnp.int32)), ValueError, "shapes"),
        (lambda x, w: ops.ragged_dot(x.astype(jnp.bfloat16), w, jnp.ones(2, jnp.int32)), TypeError, "dtype"),
        (lambda x, w: ops.mixture_of_experts(x, w[0], w, w[0], top_k=1), ValueError, r"down.*\(experts, hidden, n\)"),
        (lambda x, w: ops.mixture_of_experts(x, w[0], w, w, top_k=3), ValueError, "top_k"),
    ],
)
def test_what_does_not_fit_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call(jnp.ones((4, 3)), jnp.ones((2, 3, 5)))
