import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax

RNG = np.random.default_rng(0)
Y, T = RNG.standard_normal((5, 3)) * 2, RNG.standard_normal((5, 3))
WEIGHTS = np.array([1.0, 0.0, 2.0, 0.5, 1.0])


def huber(d, delta):
    return 0.5 * d * d if abs(d) <= delta else delta * (abs(d) - 0.5 * delta)


def smooth_l1(d, beta):
    return abs(d) if beta == 0 else 0.5 * d * d / beta if abs(d) < beta else abs(d) - 0.5 * beta


LOSSES = {
    "squared": (nnjax.mean_squared_error, {}, lambda d: d * d),
    "huber, 1": (nnjax.huber_loss, {}, lambda d: huber(d, 1)),
    "huber, 0.3": (nnjax.huber_loss, {"delta": 0.3}, lambda d: huber(d, 0.3)),
    "smooth l1, 1": (nnjax.smooth_l1_loss, {}, lambda d: smooth_l1(d, 1)),
    "smooth l1, 2.5": (nnjax.smooth_l1_loss, {"beta": 2.5}, lambda d: smooth_l1(d, 2.5)),
    "smooth l1, 0": (nnjax.smooth_l1_loss, {"beta": 0}, lambda d: smooth_l1(d, 0)),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.repeats
def test_values_and_gradients_are_those_of_a_loop(name, x64, by_hand, by_jax, close):
    make, options, f = LOSSES[name]
    each = np.array([np.mean([f(d) for d in row]) for row in Y - T])
    expected = {"mean": (WEIGHTS * each).sum() / WEIGHTS.sum(), "sum": (WEIGHTS * each).sum(), "none": WEIGHTS * each}
    for reduction, right in expected.items():
        loss, ct = make(**options, reduction=reduction), jnp.asarray(RNG.standard_normal(np.shape(right)))
        value, cts = by_hand(loss, (Y, T, WEIGHTS), ct)
        close(value, right)
        close((value, cts), by_jax(lambda x, loss=loss: loss.apply((), x), (Y, T, WEIGHTS), ct))
    step, (ct_y, *_) = 1e-6, by_hand(make(**options, reduction="sum"), (Y, T))[1]
    for i, j in np.ndindex(Y.shape):
        d = Y[i, j] - T[i, j]
        assert float(ct_y[i, j]) == pytest.approx((f(d + step) - f(d - step)) / (2 * step) / 3, abs=1e-8)


@pytest.mark.parametrize("name", ["huber, 1", "smooth l1, 2.5", "smooth l1, 0"])
def test_at_0_and_at_infinity(name, by_hand):
    make, options, _ = LOSSES[name]
    value, (ct_y, ct_t) = by_hand(
        make(**options, reduction="sum"), (jnp.array([[0.0], [jnp.inf], [-jnp.inf]]), jnp.zeros((3, 1)))
    )
    assert value == jnp.inf
    assert ct_y.ravel().tolist() == (-ct_t).ravel().tolist() == [0, 1, -1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("make", [nnjax.huber_loss, nnjax.smooth_l1_loss])
def test_low_precision_does_not_overflow(make, dtype, by_hand):
    y = jnp.full((9000, 2), 300, dtype)  # whose square overflows in float16, and whose sum in both
    value, (ct_y, _) = by_hand(make(), (y, -y))
    assert value.dtype == dtype
    assert float(value) == pytest.approx(599.5, rel=0.004)
    assert float(ct_y[0, 0]) * 18000 == pytest.approx(1, rel=0.01)


def test_a_slope_that_is_not_bounded_is_found():
    loss = nnjax.huber_loss()
    wrong = loss._replace(bwd=lambda residuals, ct: ((), (residuals[0][0] * ct / 15, -residuals[0][0] * ct / 15)))
    x = tuple(jnp.asarray(a, jnp.float32) for a in (Y, T))
    only = {"dtypes": ["float32"], "transforms": ["jit"]}
    nnjax.check_layer(loss, (), x, **only).raise_if_failed()
    assert nnjax.check_layer(wrong, (), x, **only).failures


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: nnjax.huber_loss(delta=0), "huber_loss: delta must be above 0"),
        (lambda: nnjax.huber_loss(delta=-1.0), "huber_loss: delta"),
        (lambda: nnjax.huber_loss(delta=float("nan")), "huber_loss: delta"),
        (lambda: nnjax.smooth_l1_loss(beta=-1.0), "smooth_l1_loss: beta must be at least 0"),
        (lambda: nnjax.smooth_l1_loss(beta="1"), "smooth_l1_loss: beta"),
        (lambda: nnjax.huber_loss(reduction="avg"), "huber_loss: reduction"),
        (
            lambda: nnjax.huber_loss().apply((), (jnp.ones((2, 3)), jnp.ones((2, 2)))),
            r"huber_loss: labels must have shape \(2, 3\)",
        ),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.in_turn
def test_they_serve_a_whole_model():
    model, x, t = nnjax.mlp([4, 5, 3]), jax.random.normal(jax.random.key(1), (6, 4)), jnp.ones((6, 3))
    params = model.init(jax.random.key(0))
    for loss in (nnjax.huber_loss(), nnjax.smooth_l1_loss(), nnjax.kl_divergence()):
        pair = (f(model, loss)(params, x, t) for f in (nnjax.value_and_grad, nnjax.reference_value_and_grad))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *pair)
