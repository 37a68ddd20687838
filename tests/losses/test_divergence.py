import jax.numpy as jnp
import numpy as np
import pytest

import nnjax

RNG = np.random.default_rng(0)
Q, P = (RNG.dirichlet(np.ones(4), 5) for _ in range(2))
Y = np.log(P)


@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.repeats
def test_values_and_gradients_are_the_formulas(log_target, reduction, x64, by_hand, by_jax, close):
    loss = nnjax.kl_divergence(log_target=log_target, reduction=reduction)
    each = (Q * (np.log(Q) - Y)).sum(-1)
    right = {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]
    ct = jnp.asarray(RNG.standard_normal(right.shape))
    x = Y, np.log(Q) if log_target else Q
    value, cts = by_hand(loss, x, ct)
    close(value, right)
    close((value, cts), by_jax(lambda x: loss.apply((), x), x, ct))
    share = np.broadcast_to(np.asarray(ct) / (5 if reduction == "mean" else 1), 5)[:, None]
    close(cts, [-share * Q, share * (np.log(Q) + 1 - Y) * (Q if log_target else 1)])


@pytest.mark.parametrize("log_target", [False, True])
def test_what_has_no_probability_counts_nothing(log_target, by_hand):
    y, q = jnp.array([[0.0, -jnp.inf, -jnp.inf]]), jnp.array([[1.0, 0.0, 0.0]])
    loss = nnjax.kl_divergence(log_target=log_target)
    value, (ct_y, ct_q) = by_hand(loss, (y, jnp.log(q) if log_target else q))
    assert float(value) == 0
    assert ct_y.tolist() == [[-1, 0, 0]]
    assert ct_q.tolist() == [[1, 0, 0]]
    value, _ = by_hand(loss, (y, jnp.log(q[:, ::-1]) if log_target else q[:, ::-1]))
    assert value == jnp.inf


def test_a_cotangent_of_the_target_without_its_one_is_found():
    loss, x = nnjax.kl_divergence(), tuple(jnp.asarray(a, jnp.float32) for a in (Y, Q))

    def wrong(residuals, ct):
        ct_y, ct_q = loss.bwd(residuals, ct)[1]
        return (), (ct_y, ct_q - ct / 5)

    report = nnjax.check_layer(loss._replace(bwd=wrong), (), x, dtypes=["float32"], transforms=["jit"])
    assert {row.leaf for row in report.failures} == {"x[1]"}


def test_a_flag_must_be_one():
    with pytest.raises(TypeError, match="log_target must be True or False"):
        nnjax.kl_divergence(log_target="yes")
