import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.losses.reduction import reduced_apply, reduced_bwd, reduced_fwd, shares, total_weight

RNG = np.random.default_rng(0)
L, W, C = RNG.random(5), np.array([1.0, 0.0, 2.0, 0.5, 3.0]), np.array([1.0, 1.0, 0.0, -0.5, 2.0])
HOW = [(w, c) for w in (None, W) for c in (None, C)]
IDS = ["", "counts", "weights", "weights and counts"]


@pytest.mark.parametrize(("weights", "counts"), HOW, ids=IDS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.repeats
def test_the_value_is_its_formula_and_the_pair_its_gradient(weights, counts, reduction, x64, close):
    w, c = (np.ones(5) if a is None else a for a in (weights, counts))
    expected = {"mean": (w * L).sum() / (w * c).sum(), "sum": (w * L).sum(), "none": w * L}[reduction]
    given = [jnp.asarray(L)] if weights is None else [jnp.asarray(L), jnp.asarray(W)]
    c = None if counts is None else jnp.asarray(C)

    def f(losses, weights=None):
        return reduced_apply(losses, weights, c, reduction)

    value, residuals = reduced_fwd(given[0], given[1] if len(given) > 1 else None, c, reduction)
    ct = jnp.asarray(RNG.standard_normal(value.shape))
    close(value, expected)
    right, pull = jax.vjp(f, *given)
    close(value, right)
    found = reduced_bwd(residuals, ct, reduction)
    close(found[: len(given)], pull(ct))
    assert (found[1] is None) is (weights is None)


def test_a_weight_of_0_hides_infinity_and_no_weight_at_all_is_nan():
    losses, w = jnp.array([1.0, jnp.inf]), jnp.array([2.0, 0.0])
    assert float(reduced_apply(losses, w, None, "mean")) == 1
    value, residuals = reduced_fwd(losses, 0 * w, None, "mean")
    assert jnp.isnan(value)
    assert not any(ct.any() for ct in reduced_bwd(residuals, jnp.ones(()), "mean"))
    assert reduced_apply(losses, 0 * w, None, "none").tolist() == [0, 0]


def test_shares_times_the_largest_are_each_over_the_total():
    share, most = shares(jnp.asarray(W), jnp.asarray(4.0), 5, jnp.float32)
    assert float(share.max()) == 1
    np.testing.assert_allclose(share * most, W / 4, rtol=1e-6)
    share, most = shares(None, jnp.asarray(0.0), 0, jnp.float32)
    assert share.shape == (0,)
    assert float(most) == 0


def test_the_total_weight_counts_what_the_loss_counts():
    y, labels = jnp.zeros((3, 4)), jnp.array([1, -100, 3], jnp.int32)
    loss = nnjax.softmax_cross_entropy(class_weights=[1.0, 0.5, 1.0, 4.0])
    assert float(total_weight((y, labels), loss.counts)) == 4.5
    assert float(total_weight((y, labels, jnp.array([2.0, 9.0, 1.0])), loss.counts)) == 5
    assert float(total_weight((y, y), loss.counts)) == 3  # probabilities
    assert float(total_weight((y, labels))) == 3
    assert nnjax.mean_squared_error().counts(y, jnp.float32) is None


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_what_is_no_mean_has_no_total_weight(reduction):
    loss = nnjax.mean_squared_error(reduction=reduction)
    with pytest.raises(ValueError, match=rf"mean_squared_error: .*reduction is '{reduction}'"):
        total_weight((jnp.zeros((3, 4)), jnp.zeros((3, 4))), loss.counts)
