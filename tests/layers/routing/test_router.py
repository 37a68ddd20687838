import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.layers.routing.router import Routing, gates_apply, gates_bwd, losses_apply, losses_bwd, pick, pick_t, scores


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize("over", ["chosen", "all"])
def test_gates_and_their_gradient_are_those_of_a_softmax(over, x64):
    how, logits, ct = Routing(2, over), normal(5, 4), normal(5, 2, seed=1)
    ids, g = gates_apply(logits, how)
    np.testing.assert_array_equal(ids, np.argsort(-logits, axis=1, stable=True)[:, :2])

    def plain(logits):
        p = jax.nn.softmax(logits)
        own = jnp.stack([p[t, ids[t]] for t in range(5)])
        return own / own.sum(1, keepdims=True).repeat(2, 1) if over == "chosen" else own

    def both(logits, ct):
        right, pull = jax.vjp(plain, logits)
        return (g, gates_bwd((logits, ids, g), ct, how)), (right, *pull(ct))

    for a, b in zip(*jax.jit(both)(logits, ct)):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


def test_equal_logits_are_taken_in_their_order():
    ids, g = gates_apply(jnp.array([[1.0, 2, 2, 2], [0, 0, 0, 0]]), Routing(2, "chosen"))
    assert ids.tolist() == [[1, 2], [0, 1]]
    np.testing.assert_allclose(g, np.full((2, 2), 0.5))


@pytest.mark.parametrize("weights", [(0.3, None), (None, 0.2), (0.3, 0.2)], ids=str)
def test_the_losses_and_their_gradient(weights, x64):
    how, logits, load = Routing(2, "all", *weights), 3 * normal(6, 4), jnp.array([0.5, 0, 0.25, 0.25])

    def plain(logits):
        p = jnp.exp(logits) / jnp.exp(logits).sum(1, keepdims=True).repeat(4, 1)
        balance = 4 * sum(load[e] * sum(p[t, e] for t in range(6)) / 6 for e in range(4))
        z = sum(jnp.log(jnp.exp(logits[t]).sum()) ** 2 for t in range(6)) / 6
        return (weights[0] or 0) * balance + (weights[1] or 0) * z

    def both(logits):
        value, gradient = jax.value_and_grad(plain)(logits)
        return (losses_apply(logits, load, how), losses_bwd((logits, load), jnp.float64(2), how)), (value, 2 * gradient)

    for a, b in zip(*jax.jit(both)(logits)):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


def test_the_balance_is_1_where_all_experts_are_as_busy_and_the_number_of_experts_where_one_has_all():
    how = Routing(1, "all", 1.0)
    assert float(losses_apply(jnp.zeros((8, 4)), jnp.full(4, 0.25), how)) == pytest.approx(1)
    assert float(losses_apply(jnp.zeros((8, 4)).at[:, 1].set(50), jnp.eye(4)[1], how)) == pytest.approx(4)
    assert float(losses_apply(jnp.zeros((0, 4)), jnp.zeros(4), how)) == 0


def test_picking_and_putting_back_are_transposes():
    x, ids, ct = normal(3, 4), jnp.array([[2, 0], [3, 1], [0, 3]], jnp.int32), normal(3, 2, seed=1)
    np.testing.assert_allclose((pick(x, ids) * ct).sum(), (x * pick_t(ct, ids, 4)).sum(), rtol=1e-6)


def test_logits_are_computed_in_float32_whatever_the_tokens_are():
    rows, router = normal(3, 64).astype(jnp.bfloat16), normal(64, 4, seed=1).astype(jnp.bfloat16)
    found = scores(rows, router)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, np.asarray(rows, np.float64) @ np.asarray(router, np.float64), rtol=1e-4, atol=1e-4)
