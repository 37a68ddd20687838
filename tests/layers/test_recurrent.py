import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import nnjax
from nnjax.cases import jittered

MAKE = {"rnn": nnjax.rnn, "gru": nnjax.gru, "lstm": nnjax.lstm}
ONE_QUICKLY = ["rnn", pytest.param("gru", marks=pytest.mark.slow), pytest.param("lstm", marks=pytest.mark.slow)]
QUICK = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def state_of(name, *shape):
    return nnjax.LSTMState(normal(7, *shape), normal(8, *shape)) if name == "lstm" else normal(7, *shape)


@pytest.mark.slow
@pytest.mark.in_turn
def test_rnn_is_flaxs_simple_cell():
    layer = jittered(nnjax.rnn(3, 4))
    params, x = layer.init(jax.random.key(0)), normal(1, 2, 5, 3)
    theirs = {"i": {"kernel": params.w, "bias": params.b}, "h": {"kernel": params.u}}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = linen.RNN(linen.SimpleCell(4)).apply({"params": {"cell": theirs}}, x)
    np.testing.assert_allclose(layer.apply(params, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("steps", [16, 19, 325])
@pytest.mark.repeats
def test_the_value_of_fwd_is_that_of_apply_whatever_the_windows(name, steps):
    layer = jittered(MAKE[name](3, 4))
    params, x = layer.init(jax.random.key(0)), normal(1, 2, steps, 3)
    np.testing.assert_allclose(layer.fwd(params, x)[0], layer.apply(params, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("shape", [(1, 3), (0, 2, 3), (2, 1, 17, 3)], ids=str)
@pytest.mark.slow
@pytest.mark.in_turn
def test_odd_shapes(name, shape):
    layer = jittered(MAKE[name](3, 2))
    assert not nnjax.check_layer(layer, layer.init(jax.random.key(0)), normal(2, *shape), **QUICK).failures


@pytest.mark.parametrize("name", MAKE)
def test_a_run_in_two_parts_is_one_run(name):
    whole, part = MAKE[name](3, 4), MAKE[name](3, 4, carry=True)
    params, x = whole.init(jax.random.key(0)), normal(3, 2, 7, 3)
    first, state = part.apply(params, (x[:, :4], None))
    second, _ = part.fwd(params, (x[:, 4:], state))[0]
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), whole.apply(params, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.in_turn
def test_without_a_state_the_state_has_no_cotangent(name):
    layer = MAKE[name](3, 4, carry=True)
    params, x = layer.init(jax.random.key(0)), normal(3, 2, 5, 3)
    y, residuals = layer.fwd(params, (x, None))
    _, (ct_x, ct_state) = layer.bwd(residuals, y)
    assert ct_x.shape == x.shape
    assert ct_state is None


@pytest.mark.parametrize("name", ONE_QUICKLY)
@pytest.mark.in_turn
def test_other_transforms_pass_with_both_cotangents(name):
    layer = jittered(MAKE[name](3, 2, carry=True))
    only = {"dtypes": ["float32"], "transforms": ["vmap", "checkpoint", "second"], "witnesses": ()}
    x = (normal(4, 2, 3, 3), state_of(name, 2, 2))
    nnjax.check_layer(layer, layer.init(jax.random.key(0)), x, **only).raise_if_failed()


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKE)
@pytest.mark.in_turn
def test_everything_passes_over_several_windows(name):
    layer = jittered(MAKE[name](3, 4))
    nnjax.check_layer(layer, layer.init(jax.random.key(0)), normal(5, 2, 37, 3)).raise_if_failed()


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.repeats
def test_a_backward_that_drops_the_last_states_cotangent_is_rejected(name):
    layer = jittered(MAKE[name](3, 2, carry=True))

    def bwd(residuals, cts):
        return layer.bwd(residuals, (cts[0], None))

    x = (normal(4, 2, 3, 3), state_of(name, 2, 2))
    assert nnjax.check_layer(layer._replace(bwd=bwd), layer.init(jax.random.key(0)), x, **QUICK).failures


@pytest.mark.parametrize("name", MAKE)
def test_weights_start_orthogonal_and_of_glorots_variance_gate_by_gate(name):
    params = MAKE[name](64, 32).init(jax.random.key(0))
    for u in jnp.split(params.u, params.u.shape[1] // 32, 1):
        np.testing.assert_allclose(u.T @ u, np.eye(32), atol=1e-5)
    np.testing.assert_allclose(params.w.var(), 2 / 96, rtol=0.1)


@pytest.mark.parametrize("name", MAKE)
def test_bad_input_is_refused_by_name(name):
    layer, carry = MAKE[name](3, 4), MAKE[name](3, 4, carry=True)
    params, x = layer.init(jax.random.key(0)), normal(0, 2, 5, 3)
    with pytest.raises(ValueError, match=rf"{name}: x must have shape \(\.\.\., time, 3\), got float32 \(2, 5, 2\)"):
        layer.apply(params, x[..., :2])
    with pytest.raises(ValueError, match=rf"{name}: x must have shape \(\.\.\., time, 3\), got float32 \(3,\)"):
        layer.fwd(params, x[0, 0])
    with pytest.raises(TypeError, match=rf"{name}: x must be real floating point, got int32"):
        layer.apply(params, x.astype(int))
    with pytest.raises(TypeError, match=rf"{name}: x and w must have the same dtype, got bfloat16 and float32"):
        layer.apply(params, x.astype(jnp.bfloat16))
    with pytest.raises(TypeError, match=rf"{name}: params must be .*Params\(w, u, b.*got tuple"):
        layer.apply((), x)
    with pytest.raises(ValueError, match=rf"{name}: u must have shape .*, got float32 \(4, 5\)"):
        layer.apply(params._replace(u=jnp.ones((4, 5))), x)
    with pytest.raises(TypeError, match=rf"{name}: with carry=True x must be the tuple \(x, state\), got float32"):
        carry.apply(params, x)
    with pytest.raises(ValueError, match=rf"{name}: (state|h) must have shape \(2, 4\), got float32 \(3, 4\)"):
        carry.apply(params, (x, state_of(name, 3, 4)))
    with pytest.raises(TypeError, match=rf"{name}: (state|h) and x must have the same dtype"):
        carry.apply(params, (x, jax.tree.map(lambda s: s.astype(jnp.float16), state_of(name, 2, 4))))
    with pytest.raises(ValueError, match=rf"{name}: n_hidden must be a positive int, got 0"):
        MAKE[name](3, 0)


def test_relu_is_relu_and_its_slope_at_zero_is_zero():
    layer = nnjax.rnn(2, 2, activation="relu")
    params = nnjax.RNNParams(jnp.eye(2), jnp.zeros((2, 2)), jnp.zeros(2))
    x = jnp.array([[-1.0, 2.0], [0.0, 3.0]])
    y, residuals = layer.fwd(params, x)
    assert y.tolist() == [[0, 2], [0, 3]]
    assert layer.bwd(residuals, jnp.ones((2, 2)))[1].tolist() == [[0, 1], [0, 1]]
    with pytest.raises(ValueError, match=r"activation of rnn.*'gelu'.*known are relu, tanh"):
        nnjax.rnn(2, 2, activation="gelu")
