from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.fast.by_rows import in_chunks
from nnjax.fast.cpu import linear_cross_entropy as cpu
from nnjax.linear import wide
from nnjax.losses import preference
from nnjax.losses.cross_entropy import DEFAULT, entropy_rows
from nnjax.losses.rows import Table, plainly

RNG = np.random.default_rng(0)
H, W, B = RNG.standard_normal((3, 2, 4, 5)), RNG.standard_normal((7, 5)), RNG.standard_normal(7)
RH, RW = RNG.standard_normal((3, 2, 4, 2)), RNG.standard_normal((7, 2))
LABELS = RNG.integers(0, 7, (3, 2, 4))
LABELS[0, 0, 3] = LABELS[1, 1, 0] = LABELS[2, 0, 1] = -100
WEIGHTS = np.array([1.0, 0.0, 2.5])


def log_p(h, w, b=0.0):
    """Of every answer, token by token."""
    found = np.zeros((3, 2))
    for i, j, k in np.ndindex(3, 2, 4):
        if LABELS[i, j, k] != -100:
            s = h[i, j, k] @ w.T + b
            found[i, j] += s[LABELS[i, j, k]] - np.log(np.exp(s).sum())
    return found


def formula(h, w, b, reference, beta, a):
    gain = log_p(h, w, b) - reference
    m = beta * (gain[:, 0] - gain[:, 1])
    return (1 - a) * np.log(1 + np.exp(-m)) + a * np.log(1 + np.exp(m))


@pytest.mark.parametrize("rows", [5, 24])
@pytest.mark.parametrize("many", [8, 9], ids=["a pair at a time", "all pairs"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("given", [False, True], ids=["a model", "given"])
@pytest.mark.repeats
def test_values_and_gradients_are_those_of_the_formula(given, reduction, many, rows, monkeypatch, x64, by_hand, by_jax, close):
    monkeypatch.setattr(cpu, "rows_at_a_time", lambda n, vocab: min(rows, n))
    monkeypatch.setattr(preference, "MANY", many)
    loss = nnjax.linear_dpo(beta=0.4, label_smoothing=0.1, reduction=reduction)
    reference = log_p(RH, RW)
    each = formula(H, W, B, reference, 0.4, 0.1) * WEIGHTS
    right = {"mean": each.sum() / WEIGHTS.sum(), "sum": each.sum(), "none": each}[reduction]
    ct = jnp.asarray(RNG.standard_normal(right.shape))
    x = jax.tree.map(jnp.asarray, ((H, W, B), (LABELS, reference if given else (RH, RW)), WEIGHTS))
    value, cts = by_hand(loss, x, ct)
    close(value, right)
    right, right_cts = by_jax(lambda x: loss.apply((), x), x, ct)
    assert not any(np.any(a) for a in right_cts[3:-1])  # the reference is fixed
    close((value, cts), (right, [*right_cts[:3], right_cts[-1]]))
    share, step = WEIGHTS * np.asarray(ct) / (WEIGHTS.sum() if reduction == "mean" else 1), 1e-6
    for i, j in ((0, 0), (3, 2), (6, 4)):
        e = np.zeros_like(W)
        e[i, j] = step
        up, down = (formula(H, W + sign * e, B, reference, 0.4, 0.1) * share for sign in (1, -1))
        assert float(cts[1][i, j]) == pytest.approx((up - down).sum() / (2 * step), abs=1e-7)
    assert not cts[0][LABELS == -100].any()
    assert not cts[0][1].any()  # the pair of weight 0


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("tokens", [63, 64])
def test_long_answers_need_three_products(tokens, reduction):
    x = (jnp.ones((2, 2, tokens, 3)), jnp.ones((5, 3))), (jnp.zeros((2, 2, tokens), jnp.int32), jnp.zeros((2, 2)))
    loss = nnjax.linear_dpo(reduction=reduction)
    value, residuals = loss.fwd((), x)
    backward = str(jax.make_jaxpr(loss.bwd)(residuals, value))
    assert ("dot_general" in backward) == (tokens < 64 or reduction == "none")


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_pairs_at_once_give_what_they_give_in_turn(dtype, x64, close):
    """A TPU takes them at once."""
    of = plainly(entropy_rows("linear_dpo", DEFAULT))
    h, table = jnp.asarray(H, dtype), Table(jnp.asarray(W, dtype), jnp.asarray(B, dtype))
    seen, share = jnp.asarray(LABELS != -100), jnp.asarray([0.5, 0.0, 1.0], wide(h))
    each = h, jnp.asarray(LABELS), seen, jnp.asarray(log_p(RH, RW), share.dtype), share
    how = {"beta": 0.4, "how": DEFAULT._replace(smoothing=0.1), "of": of}
    once = preference._gradient_of_pairs(each, (table, None), **how)
    turns = in_chunks(partial(preference._gradient_of_pair, **how), each, (table, None), table, 1, share.dtype)
    if dtype == "float64":
        close(once, turns)
    for a, b in zip(jax.tree.leaves(once), jax.tree.leaves(turns), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)
        assert a.dtype == b.dtype
        assert np.any(a)


@pytest.mark.parametrize("many", [8, 9])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_tokens_and_pairs_that_are_ignored_may_hold_anything(bad, many, monkeypatch, x64, by_hand, close):
    monkeypatch.setattr(preference, "MANY", many)
    loss, hidden = nnjax.linear_dpo(), ((LABELS == -100) | (WEIGHTS == 0)[:, None, None])[..., None]
    h, rh = np.where(hidden, bad, H), np.where(hidden, bad, RH)
    close(by_hand(loss, ((h, W), (LABELS, (rh, RW)), WEIGHTS)), by_hand(loss, ((H, W), (LABELS, (RH, RW)), WEIGHTS)))
    reference = np.where((WEIGHTS == 0)[:, None], bad, log_p(RH, RW))
    close(
        by_hand(loss, ((h, W), (LABELS, reference), WEIGHTS))[0], by_hand(loss, ((H, W), (LABELS, log_p(RH, RW)), WEIGHTS))[0]
    )


def test_sure_pairs_do_not_overflow(by_hand):
    x = ((jnp.zeros((1, 2, 1, 1)), jnp.zeros((2, 1))), (jnp.zeros((1, 2, 1), jnp.int32), jnp.array([[1e4, -1e4]])))
    value, cts = by_hand(nnjax.linear_dpo(beta=1.0), x)
    assert float(value) == 2e4
    assert all(jnp.isfinite(ct).all() for ct in cts)


@pytest.mark.parametrize("many", [4, 5])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_keeps_small_probabilities(dtype, many, monkeypatch, by_hand):
    monkeypatch.setattr(preference, "MANY", many)
    h, w = jnp.ones((1024, 2, 2, 2), dtype), jnp.zeros((300, 2), dtype)
    labels = jnp.zeros((1024, 2, 2), jnp.int32).at[:, 1].set(1)
    value, (ct_h, ct_w) = by_hand(nnjax.linear_dpo(beta=0.5), ((h, w), (labels, jnp.zeros((1024, 2), dtype))))
    assert value.dtype == ct_h.dtype == ct_w.dtype == dtype
    assert float(value) == pytest.approx(np.log(2), rel=0.004)
    np.testing.assert_allclose(np.asarray(ct_w[:3, 0], np.float64), [-0.5, 0.5, 0], rtol=0.01, atol=1e-4)


def test_the_outputs_are_never_kept():
    loss, vocab = nnjax.linear_dpo(), 2**13
    x = (jnp.ones((4, 2, 256, 8)), jnp.ones((vocab, 8))), (jnp.zeros((4, 2, 256), jnp.int32), jnp.zeros((4, 2)))

    def f(x):
        value, residuals = loss.fwd((), x)
        return loss.bwd(residuals, value)[1][0]

    assert jax.jit(f).lower(x).compile().memory_analysis().temp_size_in_bytes < 0.5 * 2048 * vocab * 4


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: nnjax.linear_dpo(beta=0), ValueError, "linear_dpo: beta must be a number above 0"),
        (lambda: nnjax.linear_dpo(label_smoothing=1.0), ValueError, "linear_dpo: label_smoothing"),
        (lambda: nnjax.linear_dpo(reduction=None), ValueError, "linear_dpo: reduction"),
        (lambda: nnjax.linear_dpo(kernel="yes"), TypeError, "linear_dpo: kernel"),
        (lambda: nnjax.linear_dpo().apply((), ((H, W), LABELS)), TypeError, "labels must be .labels, reference"),
        (lambda: nnjax.linear_dpo().apply((), ((H[0, 0], W), (LABELS, log_p(RH, RW)))), ValueError, "chosen before rejected"),
        (lambda: nnjax.linear_dpo().apply((), ((H, W), (LABELS[:2], log_p(RH, RW)))), ValueError, r"labels must have shape"),
        (lambda: nnjax.linear_dpo().apply((), ((H, W), (LABELS, log_p(RH, RW)[:2]))), ValueError, "reference must have shape"),
        (lambda: nnjax.linear_dpo().apply((), ((H, W), (LABELS, (RH[:2], RW)))), ValueError, "the same tokens and classes"),
        (lambda: nnjax.linear_dpo().apply((), ((H, W), (LABELS + 7, log_p(RH, RW)))), ValueError, "labels must lie in"),
        (lambda: nnjax.linear_dpo().apply((), ((H, W), (H, log_p(RH, RW)))), TypeError, "integer class numbers"),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
