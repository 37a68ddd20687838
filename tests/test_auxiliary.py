import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import auxiliary
from nnjax.layer import Layer, met

KEY = jax.random.key(0)


def squares():
    """x -> (x, sum x^2), whose loss any model could have."""

    def bwd(residuals, ct_y):
        (x,), (ct_x, ct_own) = residuals, ct_y
        return (), ct_x + 2 * ct_own * x

    return Layer("squares", lambda key: (), lambda params, x, *, key=None: (x, (x * x).sum()),
                 lambda params, x, *, key=None: ((x, (x * x).sum()), (x,)), bwd)  # fmt: skip


def model():
    inside = nnjax.residual(nnjax.serial(nnjax.dense(3, 3), squares()))
    first, last = auxiliary.start(nnjax.dense(2, 3)), auxiliary.past(nnjax.dense(3, 4))
    return nnjax.serial(first, nnjax.scan_layers(auxiliary.add(inside), 2), last)


@pytest.mark.in_turn
def test_the_losses_of_all_layers_are_in_the_value_and_in_the_gradient():
    loss = auxiliary.to_loss(nnjax.softmax_cross_entropy())
    params, x, labels = model().init(KEY), jnp.array([[1.0, 2.0], [-1.0, 0.5]]), jnp.array([0, 3])

    def plain(params):
        h, total = x @ params[0].w + jnp.stack([params[0].b] * 2), 0.0
        for i in range(2):
            inside = params[1][0]
            f = h @ inside.w[i] + jnp.stack([inside.b[i]] * 2)
            h, total = h + f, total + (f * f).sum()
        y = h @ params[2].w + jnp.stack([params[2].b] * 2)
        return -jax.nn.log_softmax(y)[jnp.arange(2), labels].mean() + total

    value, grads = jax.jit(nnjax.value_and_grad(model(), loss))(params, x, labels)
    right, theirs = jax.jit(jax.value_and_grad(plain))(params)
    np.testing.assert_allclose(value, right, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), grads, theirs)


@pytest.mark.in_turn
def test_a_sum_that_gets_no_gradient_is_rejected():
    whole = model()
    params, x = whole.init(KEY), jnp.array([[1.0, 2.0], [-1.0, 0.5]])
    quick = {"dtypes": ["float64"], "transforms": ["jit"]}
    nnjax.check_layer(whole, params, x, **quick).raise_if_failed()

    def forgetful(residuals, ct_y):
        return whole.bwd(residuals, (ct_y[0], jnp.zeros_like(ct_y[1])))

    assert not nnjax.check_layer(whole._replace(bwd=forgetful), params, x, **quick).ok


def test_the_parts_are_met_where_they_stand():
    whole = model()
    params, x = whole.init(KEY), jnp.ones((2, 2))
    assert [part.layer.name.split("(")[0] for part in met(whole, params, x)] == [
        "auxiliary.start",
        "scan_layers",
        "auxiliary.past",
    ]
    add = auxiliary.add(squares())
    assert [part.name for part in met(add, (), (jnp.ones(3), jnp.float32(1)))] == ["add"]
    loss = auxiliary.to_loss(nnjax.mean_squared_error())
    assert [part.name for part in met(loss, (), ((jnp.ones(3), jnp.float32(1)), jnp.ones(3)))] == ["loss"]
    fast = auxiliary.past(nnjax.max_pool(2))
    assert (fast.parts[0].plain is None, nnjax.plain(fast).parts[0].plain) == (False, None)


def test_weights_and_a_value_in_low_precision():
    loss = auxiliary.to_loss(nnjax.mean_squared_error())
    y, t, w = (jnp.ones((2, 3), jnp.bfloat16) * c for c in (1, 3, 1))
    x = ((y, jnp.float32(0.5)), t, w[:, 0])
    value, residuals = loss.fwd((), x)
    assert value.dtype == jnp.bfloat16
    assert float(value) == float(nnjax.mean_squared_error().apply((), (y, t, w[:, 0]))) + 0.5
    _, ((ct_y, ct_a), _, ct_w) = loss.bwd(residuals, jnp.bfloat16(2))
    assert (ct_a.dtype, float(ct_a), ct_y.dtype, ct_w.shape) == (jnp.float32, 2.0, jnp.bfloat16, (2,))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: auxiliary.past(nnjax.tanh()).apply((), jnp.ones(3)), r"x must be a pair.*float32 \(3,\)"),
        (lambda: auxiliary.add(nnjax.tanh()).apply((), (jnp.ones(3), jnp.float32(0))), "must return.*past"),
        (lambda: auxiliary.to_loss(nnjax.mean_squared_error()).apply((), (jnp.ones(3), jnp.ones(3))), "must be a pair"),
        (lambda: auxiliary.to_loss(nnjax.mean_squared_error()).apply((), jnp.ones(3)), "labels"),
        (lambda: auxiliary.start(nnjax.tanh), "expected a Layer"),
        (lambda: auxiliary.past(nnjax.tanh()).bwd((jnp.ones(3),), jnp.ones(3)), "ct_y must be a pair"),
    ],
)
def test_what_is_no_pair_is_named(call, words):
    with pytest.raises(TypeError, match=words):
        call()


def test_a_sum_that_is_no_number_is_named():
    layer = auxiliary.past(nnjax.tanh())
    _, residuals = layer.fwd((), (jnp.zeros(2), jnp.float32(0)))
    with pytest.raises(TypeError, match="real floating point"):
        layer.bwd(residuals, (jnp.ones(2), KEY))
