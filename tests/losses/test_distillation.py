import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.fast.cpu import linear_cross_entropy as cpu

RNG = np.random.default_rng(0)
H, W, B = RNG.standard_normal((2, 5, 4)), RNG.standard_normal((7, 4)), RNG.standard_normal(7)
TH, TW, TB = RNG.standard_normal((2, 5, 3)), RNG.standard_normal((7, 3)), RNG.standard_normal(7)
WEIGHTS = RNG.integers(0, 3, (2, 5)).astype(np.float64)


def softmax(s):
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p, q):
    return (p * (np.log(p) - np.log(q))).sum(-1)


def formula(h, w, b, beta, temperature):
    q, p = softmax((h @ w.T + b) / temperature), softmax((TH @ TW.T + TB) / temperature)
    if beta in (0, 1):
        return kl(q, p) if beta else kl(p, q)
    m = beta * p + (1 - beta) * q
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


def made(beta, temperature, reduction):
    if beta == "kl":
        return nnjax.linear_kl_divergence(temperature=temperature, reduction=reduction)
    return nnjax.linear_jensen_shannon(beta=beta, temperature=temperature, reduction=reduction)


@pytest.mark.parametrize("rows", [3, 10])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("beta", ["kl", 0, 0.3, 0.5, 1])
@pytest.mark.repeats
def test_values_and_gradients_are_those_of_the_formula(beta, reduction, rows, monkeypatch, x64, by_hand, by_jax, close):
    monkeypatch.setattr(cpu, "rows_at_a_time", lambda n, vocab: rows)
    loss, number = made(beta, 2.0, reduction), 0 if beta == "kl" else beta
    each = formula(H, W, B, number, 2.0) * WEIGHTS
    right = {"mean": each.sum() / WEIGHTS.sum(), "sum": each.sum(), "none": each}[reduction]
    ct = jnp.asarray(RNG.standard_normal(right.shape))
    x = jax.tree.map(jnp.asarray, ((H, W, B), (TH, TW, TB), WEIGHTS))
    value, cts = by_hand(loss, x, ct)
    close(value, right)
    right, right_cts = by_jax(lambda x: loss.apply((), x), x, ct)
    assert not any(np.any(a) for a in right_cts[3:6])  # the teacher is fixed
    close((value, cts), (right, [*right_cts[:3], right_cts[-1]]))
    share, step = WEIGHTS * np.asarray(ct) / (WEIGHTS.sum() if reduction == "mean" else 1), 1e-6
    for i, j in ((0, 0), (3, 2), (6, 1)):
        e = np.zeros_like(W)
        e[i, j] = step
        up, down = (formula(H, W + sign * e, B, number, 2.0) * share for sign in (1, -1))
        assert float(cts[1][i, j]) == pytest.approx((up - down).sum() / (2 * step), abs=1e-7)


@pytest.mark.parametrize("beta", ["kl", 0.5, 1])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.repeats
def test_rows_of_weight_0_may_hold_anything(beta, bad, x64, by_hand, close):
    loss, hidden = made(beta, 1.0, "mean"), (WEIGHTS == 0)[..., None]
    h, taught = np.where(hidden, bad, H), np.where(hidden, bad, TH)
    close(by_hand(loss, ((h, W), (taught, TW), WEIGHTS)), by_hand(loss, ((H, W), (TH, TW), WEIGHTS)))


@pytest.mark.parametrize("beta", ["kl", 0.5, 1])
@pytest.mark.repeats
def test_a_class_that_neither_has_is_as_if_it_were_cut_out(beta, x64, by_hand, close):
    loss = made(beta, 1.0, "mean")
    w, b = np.insert(W, 2, 5.0, 0), np.insert(B, 2, -np.inf)
    tw, tb = np.insert(TW, 2, 5.0, 0), np.insert(TB, 2, -np.inf)
    value, (ct_h, ct_w, ct_b) = by_hand(loss, ((H, w, b), (TH, tw, tb)))
    right, cts = by_hand(loss, ((H, W, B), (TH, TW, TB)))
    close((value, [ct_h, np.delete(ct_w, 2, 0), np.delete(ct_b, 2)]), (right, cts))
    assert not ct_w[2].any()


def test_distant_distributions_are_log_2_apart_and_have_finite_gradients(by_hand):
    h, w = jnp.ones((1, 1)), jnp.array([[200.0], [0.0]])
    value, cts = by_hand(nnjax.linear_jensen_shannon(), ((h, w), (h, w[::-1])))
    assert float(value) == pytest.approx(np.log(2), rel=1e-6)
    assert all(jnp.isfinite(ct).all() for ct in cts)
    value, (ct_h, _) = by_hand(nnjax.linear_kl_divergence(), ((h, w), (h, w[::-1])))
    assert float(value) == 200
    assert float(ct_h[0, 0]) == 200


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_is_computed_in_float32(dtype, by_hand):
    n = 4096
    h, w = jnp.ones((n, 2), dtype), jnp.zeros((300, 2), dtype)
    value, (ct_h, ct_w) = by_hand(nnjax.linear_kl_divergence(), ((h, w.at[0].set(2)), (h, w)))
    assert value.dtype == ct_h.dtype == dtype
    q, p = softmax(np.array([4.0, *[0.0] * 299])), np.full(300, 1 / 300)
    assert float(value) == pytest.approx(kl(p, q), rel=0.01)
    np.testing.assert_allclose(np.asarray(ct_w[:, 0], np.float64), q - p, rtol=0.02)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: nnjax.linear_jensen_shannon(beta=1.5), ValueError, "linear_jensen_shannon: beta must lie in 0"),
        (lambda: nnjax.linear_kl_divergence(temperature=0), ValueError, "linear_kl_divergence: temperature"),
        (lambda: nnjax.linear_kl_divergence(reduction="batchmean"), ValueError, "linear_kl_divergence: reduction"),
        (lambda: nnjax.linear_kl_divergence().apply((), ((H, W), TH)), TypeError, "the teacher's"),
        (lambda: nnjax.linear_kl_divergence().apply((), ((H, W), (TH, TW[:5]))), ValueError, "the same rows and classes"),
        (lambda: nnjax.linear_kl_divergence().apply((), ((H, W), (TH, TW.T))), ValueError, "teacher_w.T"),
        (lambda: nnjax.linear_kl_divergence().apply((), (H, (TH, TW))), TypeError, "x must be"),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_student_by_hand_is_one_by_jax():
    student, teacher = nnjax.gpt(5, 4, 1, 1, 4, fused=True), nnjax.gpt(5, 4, 1, 2, 6, fused=True)
    params, taught = student.init(jax.random.key(0)), teacher.init(jax.random.key(1))
    ids = jnp.zeros((3, 4), jnp.int32)
    labels = teacher.apply(taught, ids)
    for loss in (nnjax.linear_kl_divergence(), nnjax.linear_jensen_shannon()):
        pair = (f(student, loss)(params, ids, labels) for f in (nnjax.value_and_grad, nnjax.reference_value_and_grad))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *pair)
