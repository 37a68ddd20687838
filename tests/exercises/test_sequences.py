"""Planted wrong answers: those that are known get their name, and others are told where they are wrong."""

import jax
import jax.numpy as jnp
import pytest

from nnjax import exercises
from nnjax.linear import broadcast


def attention(coupled=True, swapped=False, v_transposed=True):
    def bwd(residuals, ct_y):
        q, k, v, p = residuals
        ct_p = ct_y @ v.T
        shared = broadcast((p * ct_p).sum(1, keepdims=True), p.shape) if coupled else 0
        ct_scores = p * (ct_p - shared) / 2
        ct_q, ct_k = ct_scores @ k, ct_scores.T @ q
        ct_v = (p.T if v_transposed else p) @ ct_y
        return (ct_k, ct_q, ct_v) if swapped else (ct_q, ct_k, ct_v)

    return bwd


def through_time(carry=True, by=lambda u: u.T, xs_in=1, cut=True, h0=1):
    def bwd(residuals, ct_hs):
        u, w, xs, before, hs, *start = residuals
        start = start[0] if start and cut else jnp.zeros(len(hs), bool)

        def step(ct_h, at):
            ct_h_t, h, begins = at
            ct_z = ((ct_h_t + ct_h) if carry else ct_h_t) * (1 - h**2)
            back = ct_z @ by(u)
            return jnp.where(begins, jnp.zeros_like(back), back), ct_z

        ct_h0, ct_zs = jax.lax.scan(step, jnp.zeros_like(hs[0]), (ct_hs, hs, start), reverse=True)
        return before.T @ ct_zs, xs.T @ ct_zs, h0 * ct_h0, (ct_zs @ w.T)[::xs_in]

    return bwd


FORGOTTEN = "what comes back from later steps is missing"


@pytest.mark.repeats
@pytest.mark.parametrize(
    ("name", "bwd", "said"),
    [
        (
            "attend",
            attention(coupled=False),
            {"ct_q": "softmax was taken entry by entry", "ct_k": "softmax was taken entry by entry", "ct_v": "right"},
        ),
        ("attend", attention(v_transposed=False), {"ct_q": "right", "ct_k": "right", "ct_v": "the transpose is missing"}),
        ("attend", attention(swapped=True), {"ct_q": "another leaf, k", "ct_k": "another leaf, q", "ct_v": "right"}),
        (
            "recurrence",
            through_time(carry=False),
            {"ct_u": FORGOTTEN, "ct_w": FORGOTTEN, "ct_h0": FORGOTTEN, "ct_xs": FORGOTTEN},
        ),
        (
            "recurrence",
            through_time(by=lambda u: u),
            dict.fromkeys(("ct_u", "ct_w", "ct_h0", "ct_xs"), "u is not transposed"),
        ),
        (
            "recurrence",
            through_time(xs_in=-1),
            {"ct_u": "right", "ct_w": "right", "ct_h0": "right", "ct_xs": "in another order"},
        ),
        (
            "in_pieces",
            through_time(cut=False),
            {"ct_u": "full gradient", "ct_w": "full gradient", "ct_h0": "full gradient", "ct_xs": "full gradient"},
        ),
        ("in_pieces", through_time(h0=0), {"ct_u": "right", "ct_w": "right", "ct_h0": "zero everywhere", "ct_xs": "right"}),
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
