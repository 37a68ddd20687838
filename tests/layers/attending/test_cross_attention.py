import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.layers.attending.cross_attention import cross_attention

QUICK = {"dtypes": ["float64", "float32"], "transforms": ["jit"]}


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def made(layer):
    return jax.tree.map(lambda p: p + 0.1 * normal(*p.shape, seed=3), layer.init(jax.random.key(0)))


@pytest.mark.in_turn
def test_forward_is_jax_nn_dot_product_attention_between_three_dense_maps():
    layer = cross_attention(8, 6, 4, kv_heads=2)
    params, x, memory = made(layer), normal(2, 5, 8), normal(2, 3, 6, seed=1)

    @jax.jit
    def three(params, x, memory):
        with jax.numpy_rank_promotion("allow"):
            q = (x @ params.q.w + params.q.b).reshape(2, 5, 4, 2)
            k, v = jnp.split((memory @ params.kv.w + params.kv.b).reshape(2, 3, 4, 2), 2, 2)
            y = jax.nn.dot_product_attention(q, k, v).reshape(2, 5, 8)
            return y @ params.out.w + params.out.b

    np.testing.assert_allclose(layer.apply(params, (x, memory)), three(params, x, memory), atol=1e-5)


@pytest.mark.in_turn
def test_a_memory_whose_values_are_forgotten_is_rejected_and_the_layer_passes():
    layer = cross_attention(4, 3, 2, mask=True, softcap=3.0)
    mask = jnp.array([[True, False, True], [False, False, False]])
    params, x = made(layer), (normal(2, 2, 4), normal(2, 3, 3, seed=1), mask)
    nnjax.check_layer(layer, params, x, **QUICK).raise_if_failed()

    def wrong(residuals, ct_y):
        ct_params, (ct_x, ct_memory, none) = layer.bwd(residuals, ct_y)
        return ct_params, (ct_x, ct_memory * 0.5, none)

    assert not nnjax.check_layer(layer._replace(bwd=wrong), params, x, **QUICK).ok


@pytest.mark.in_turn
def test_who_may_look_at_nothing_gives_the_bias_and_what_is_hidden_may_be_nan():
    layer = cross_attention(4, 3, 2, mask=True)
    params = made(layer)
    memory = normal(2, 3, 3).at[0, 1].set(jnp.nan).at[1].set(jnp.inf)
    mask = jnp.array([[True, False, True], [False, False, False]])
    y, residuals = layer.fwd(params, (normal(2, 2, 4), memory, mask))
    np.testing.assert_allclose(y[1], jnp.broadcast_to(params.out.b, (2, 4)), atol=1e-6)
    assert jnp.isfinite(y).all()
    _, (ct_x, ct_memory, none) = layer.bwd(residuals, jnp.ones_like(y))
    assert jnp.isfinite(ct_x).all()
    np.testing.assert_array_equal(ct_memory[1], jnp.zeros((3, 3)))
    assert none is None


@pytest.mark.in_turn
def test_no_example_and_one_position():
    layer = cross_attention(4, 3, 2)
    params = layer.init(jax.random.key(0))
    y, residuals = layer.fwd(params, (jnp.zeros((0, 2, 4)), jnp.zeros((0, 1, 3))))
    ct_params, (ct_x, ct_memory) = layer.bwd(residuals, y)
    assert (y.shape, ct_x.shape, ct_memory.shape) == ((0, 2, 4), (0, 2, 4), (0, 1, 3))
    assert not any(jnp.abs(ct).sum() for ct in jax.tree.leaves(ct_params))
    assert layer.apply(params, (normal(1, 4), normal(1, 3))).shape == (1, 4)


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (normal(2, 4), TypeError, r"tuple \(x, memory\)"),
        ((normal(2, 4), normal(2, 4)), ValueError, r"memory.*\(..., positions, 3\)"),
        ((normal(2, 2, 4), normal(2, 3)), ValueError, "leading axes"),
        ((normal(2, 4), normal(2, 3).astype(jnp.bfloat16)), TypeError, "memory.*bfloat16"),
    ],
)
def test_what_does_not_fit_is_named(x, error, words):
    layer = cross_attention(4, 3, 2)
    with pytest.raises(error, match=words):
        layer.apply(layer.init(jax.random.key(0)), x)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="heads must divide n"):
        cross_attention(5, 3, 2)
    with pytest.raises(ValueError, match="kv_heads must divide"):
        cross_attention(6, 3, 3, kv_heads=2)
