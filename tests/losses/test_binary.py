import jax.numpy as jnp
import numpy as np
import pytest

import nnjax

RNG = np.random.default_rng(0)
Y, T = RNG.standard_normal((5, 3)) * 3, RNG.random((5, 3))
P, WEIGHTS = np.array([0.5, 3.0, 0.0]), np.array([1.0, 0.0, 2.0, 0.5, 1.0])


def logistic(v):
    return 1 / (1 + np.exp(-v))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("p", [None, P, 2.5], ids=["", "each", "one"])
@pytest.mark.repeats
def test_values_and_gradients_are_the_formulas(p, reduction, x64, by_hand, by_jax, close):
    factor = 1 if p is None else p
    each = -(factor * T * np.log(logistic(Y)) + (1 - T) * np.log(1 - logistic(Y))).mean(-1) * WEIGHTS
    right = {"mean": each.sum() / WEIGHTS.sum(), "sum": each.sum(), "none": each}[reduction]
    loss = nnjax.binary_cross_entropy(pos_weight=p, reduction=reduction)
    ct = jnp.asarray(RNG.standard_normal(right.shape))
    value, cts = by_hand(loss, (Y, T, WEIGHTS), ct)
    close(value, right)
    close((value, cts), by_jax(lambda x: loss.apply((), x), (Y, T, WEIGHTS), ct))
    shares = np.broadcast_to(WEIGHTS * np.asarray(ct) / (WEIGHTS.sum() if reduction == "mean" else 1), 5)[:, None] / 3
    close(cts[0], shares * ((factor * T + 1 - T) * logistic(Y) - factor * T))
    close(cts[1], shares * (np.log(1 - logistic(Y)) - factor * np.log(logistic(Y))))


def test_sure_logits_are_certain_with_a_weight_too(by_hand):
    y, t = jnp.array([[jnp.inf, -jnp.inf, 1e4, -1e4]]), jnp.array([[1.0, 0.0, 1.0, 0.0]])
    loss = nnjax.binary_cross_entropy(pos_weight=[2.0, 2.0, 2.0, 2.0])
    value, (ct_y, _) = by_hand(loss, (y, t))
    assert float(value) == 0
    assert not ct_y.any()
    value, (ct_y, _) = by_hand(loss, (y, 1 - t))
    assert value == jnp.inf
    np.testing.assert_allclose(ct_y, [[0.25, -0.5, 0.25, -0.5]])


def test_the_weight_of_the_positive_is_found_missing():
    loss, without = nnjax.binary_cross_entropy(pos_weight=P.astype(np.float32)), nnjax.binary_cross_entropy()
    x = tuple(jnp.asarray(a, jnp.float32) for a in (Y, T))
    wrong = loss._replace(fwd=lambda params, x, *, key=None: (loss.fwd(params, x)[0], without.fwd(params, x)[1]))
    only = {"dtypes": ["float32"], "transforms": ["jit"]}
    nnjax.check_layer(loss, (), x, **only).raise_if_failed()
    assert nnjax.check_layer(wrong, (), x, **only).failures


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"binary_cross_entropy: pos_weight must be a number or have shape \(3,\)"):
        nnjax.binary_cross_entropy(pos_weight=[1.0, 2.0]).apply((), (Y, T))
    with pytest.raises(TypeError, match="binary_cross_entropy: pos_weight must be"):
        nnjax.binary_cross_entropy(pos_weight="2")
    with pytest.raises(ValueError, match="binary_cross_entropy: reduction"):
        nnjax.binary_cross_entropy(reduction="avg")
