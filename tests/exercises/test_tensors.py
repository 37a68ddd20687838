"""Planted wrong answers: those that are known get their name, and others are told where they are wrong."""

import jax
import jax.numpy as jnp
import pytest

from nnjax import exercises
from nnjax.exercises import tensors
from nnjax.linear import broadcast


def shares_without_the_sum(residuals, ct_y):
    return (ct_y[0] / residuals[1],)


def shares_where_one_entry_is_lost(residuals, ct_y):
    x, s = residuals
    ct_s = -(ct_y[0] * x).sum(-1, keepdims=True) / s**2 + ct_y[1] / s
    return ((ct_y[0] / s + ct_s).at[1, 2].set(0),)


def project_with_w_as_it_is(residuals, ct_y):
    x, w = residuals
    return jnp.einsum("bhtd,hdc->btc", ct_y, w), jnp.einsum("bhtd,btc->hcd", ct_y, x)


def project_with_a_time_too_late(residuals, ct_y):
    x, w = residuals
    return jnp.einsum("bhtd,hcd->btc", jnp.roll(ct_y, 1, 2), w), -jnp.einsum("bhtd,btc->hcd", ct_y, x)


def entropy_through_softmax_again(residuals, ct_y):
    p, labels = residuals
    g = ct_y * (p - jax.nn.one_hot(labels, 4, dtype=p.dtype)) / 5
    return p * (g - broadcast((p * g).sum(-1, keepdims=True), p.shape)), None


def entropy_of_the_next_label(residuals, ct_y):
    p, labels = residuals
    return ct_y * (p - jax.nn.one_hot(labels + 1, 4, dtype=p.dtype)) / 5, None


def norm_of_constant_statistics(residuals, ct_y):
    x_hat, s, gamma = residuals
    return ct_y * broadcast(gamma, ct_y.shape) / s, (ct_y * x_hat).sum(0), ct_y.sum(0)


def norm_by_one_example_fewer(residuals, ct_y):
    x_hat, s, gamma = residuals
    ct = ct_y * broadcast(gamma, ct_y.shape)

    def mean(v):
        return v.sum(0, keepdims=True) / (len(v) - 1)  # as in an unbiased variance

    return (ct - mean(ct) - x_hat * mean(ct * x_hat)) / s, ct_y.sum(0), (ct_y * x_hat).sum(0)  # and two have changed places


def convolution(added=True, windows=4):
    def bwd(residuals, ct_y):
        x, w = residuals
        ct_x, ct_seen = jnp.zeros_like(x), jnp.einsum("po,jco->jpc", ct_y, w)
        for j in range(3):
            place = ct_x.at[j : j + 2 * windows - 1 : 2]
            ct_x = place.add(ct_seen[j, :windows]) if added else place.set(ct_seen[j, :windows])
        return ct_x, jnp.einsum("jpc,po->jco", tensors.windows(x, 3, 2), ct_y)

    return bwd


@pytest.mark.repeats
@pytest.mark.parametrize(
    ("name", "bwd", "said"),
    [
        ("shares", shares_without_the_sum, {"ct_x": "the way through the sum is missing"}),
        ("shares", shares_where_one_entry_is_lost, {"ct_x": "1 of 20 entries"}),
        ("project", project_with_w_as_it_is, {"ct_x": "w is not transposed", "ct_w": "right"}),
        ("project", project_with_a_time_too_late, {"ct_x": "in another order", "ct_w": "negated"}),
        ("cross_entropy", entropy_through_softmax_again, {"ct_scores": "softmax is differentiated twice"}),
        ("cross_entropy", entropy_of_the_next_label, {"ct_scores": "8 of 20 entries"}),
        (
            "batch_norm",
            norm_of_constant_statistics,
            {"ct_x": "the batch's mean and deviation were taken for constants", "ct_gamma": "right", "ct_beta": "right"},
        ),
        (
            "batch_norm",
            norm_by_one_example_fewer,
            {"ct_x": "18 of 18 entries", "ct_gamma": "without x_hat", "ct_beta": "another leaf, gamma"},
        ),
        ("convolve", convolution(added=False), {"ct_x": "added, not overwritten", "ct_w": "right"}),
        ("convolve", convolution(windows=3), {"ct_x": "6 of 20 entries", "ct_w": "right"}),
    ],
)
@pytest.mark.in_turn
def test_a_wrong_answer_fails_and_is_told_why(name, bwd, said):
    found = exercises.grade(name, bwd)
    assert not found.ok
    assert found.report.failures
    assert found.said.keys() == said.keys()
    for leaf, words in said.items():
        assert words in found.said[leaf], str(found)
