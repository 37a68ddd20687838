"""The engine of the fused losses: any number of rows at a time, every option, no memory for all outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.fast.cpu import linear_cross_entropy as cpu
from nnjax.losses.rows import Table, scores, scores_t

RNG = np.random.default_rng(0)
H, W, B = RNG.standard_normal((2, 5, 4)), RNG.standard_normal((7, 4)), RNG.standard_normal(7)
LABELS, Q = RNG.integers(0, 7, (2, 5)), RNG.dirichlet(np.ones(7), (2, 5))
LABELS[0, 1] = LABELS[1, 4] = -100
WEIGHTS, M = RNG.integers(0, 3, (2, 5)).astype(np.float64), RNG.random(7)
OPTIONS = {
    "plain": {},
    "class weights": {"class_weights": M},
    "smoothed": {"label_smoothing": 0.2, "class_weights": M},
    "capped": {"softcap": 2.0, "z_loss": 0.3},
}


def unfused(x, **options):
    (h, w, *b), *rest = x
    s = h @ w.T
    s = s + jnp.broadcast_to(b[0], s.shape) if b else s
    return nnjax.softmax_cross_entropy(**options).apply((), (s, *rest))


@pytest.mark.parametrize("rows", [3, 10])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("soft", [False, True], ids=["numbers", "probabilities"])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.repeats
def test_it_is_the_loss_of_the_outputs(name, soft, reduction, rows, monkeypatch, x64, by_hand, by_jax, close):
    monkeypatch.setattr(cpu, "rows_at_a_time", lambda n, vocab: rows)
    how = {**OPTIONS[name], "reduction": reduction}
    labels = Q if soft else LABELS
    ct = jnp.asarray(RNG.standard_normal((2, 5) if reduction == "none" else ()))
    for x in (((H, W), labels, WEIGHTS), ((H, W, B), labels)):
        x = jax.tree.map(jnp.asarray, x)
        found, right = by_hand(nnjax.linear_cross_entropy(**how), x, ct), by_jax(lambda x: unfused(x, **how), x, ct)
        close(found, right, 1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("name", ["plain", "capped"])
@pytest.mark.repeats
def test_rows_that_are_ignored_may_hold_anything(name, reduction, bad, x64, by_hand, close):
    loss = nnjax.linear_cross_entropy(**OPTIONS[name], reduction=reduction)
    spoilt = np.where((LABELS == -100)[..., None], bad, H)
    value, cts = by_hand(loss, ((spoilt, W, B), LABELS))
    close((value, cts), by_hand(loss, ((H, W, B), LABELS)))
    assert not cts[0][LABELS == -100].any()


@pytest.mark.parametrize("soft", [False, True], ids=["numbers", "probabilities"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.repeats
def test_a_bias_of_minus_infinity_takes_a_class_away(soft, reduction, x64, by_hand, close):
    w, b, q = np.insert(W, 3, 1.0, 0), np.insert(B, 3, -np.inf), np.insert(Q, 3, 0.0, -1)
    labels = np.where(LABELS >= 3, LABELS + 1, LABELS)
    loss = nnjax.linear_cross_entropy(softcap=3.0, reduction=reduction)
    value, (ct_h, ct_w, ct_b, *_) = by_hand(loss, ((H, w, b), q if soft else labels))
    right, (right_h, right_w, right_b, *_) = by_hand(loss, ((H, W, B), Q if soft else LABELS))
    close((value, ct_h, np.delete(ct_w, 3, 0), np.delete(ct_b, 3)), (right, right_h, right_w, right_b))
    assert not ct_w[3].any()
    assert not ct_b[3].any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_low_precision_keeps_small_probabilities_of_many_rows(dtype, reduction, by_hand):
    n, vocab = 4096, 300
    h, w, b = jnp.ones((n, 2), dtype), jnp.ones((vocab, 2), dtype), jnp.zeros(vocab, dtype)
    ct = jnp.full((n,) if reduction == "none" else (), 1 / n, dtype)
    _, (_, ct_w, ct_b) = by_hand(nnjax.linear_cross_entropy(reduction=reduction), ((h, w, b), jnp.zeros(n, jnp.int32)), ct)
    expected = np.full(vocab, 1 / vocab) - np.eye(vocab)[0]
    np.testing.assert_allclose(np.asarray(ct_b, np.float64), expected, rtol=0.01)
    np.testing.assert_allclose(np.asarray(ct_w[:, 1], np.float64), expected, rtol=0.01)


@pytest.mark.in_turn
def test_the_maps_are_transposes(x64):
    h, table, y = jnp.asarray(H.reshape(10, 4)), (jnp.asarray(W), jnp.asarray(B)), jnp.asarray(RNG.standard_normal((10, 7)))

    def at(y):
        return h.astype(y.dtype), Table(*(a.astype(y.dtype) for a in table))

    only = {"dtypes": ["float64", "float32"]}
    nnjax.check_transpose(
        lambda h: scores(h, Table(W.astype(h.dtype))), lambda y: scores_t(y, *at(y))[0], h, y, **only
    ).raise_if_failed()
    nnjax.check_transpose(
        lambda t: scores(h.astype(t[0].dtype), Table(*t)), lambda y: tuple(scores_t(y, *at(y))[1]), table, y, **only
    ).raise_if_failed()


@pytest.mark.parametrize("words", ["none", "capped", "probabilities"])
@pytest.mark.repeats
def test_the_outputs_are_never_kept(words):
    n, vocab = 2**14, 2**13
    how = {"none": {"reduction": "none"}, "capped": {"softcap": 5.0}, "probabilities": {}}[words]
    loss = nnjax.linear_cross_entropy(**how)

    def f(h, w, labels):
        value, residuals = loss.fwd((), ((h, w), labels))
        return value, loss.bwd(residuals, jnp.ones_like(value))[1][0]

    labels = jax.ShapeDtypeStruct(*(((n, vocab), jnp.float32) if words == "probabilities" else ((n,), jnp.int32)))
    h, w = (jax.ShapeDtypeStruct((size, 8), jnp.float32) for size in (n, vocab))
    compiled = jax.jit(f).lower(h, w, labels).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.25 * n * vocab * 4


def test_bad_input_is_refused(x64):
    loss = nnjax.linear_cross_entropy()
    with pytest.raises(ValueError, match=r"linear_cross_entropy: b must have shape \(7,\)"):
        loss.fwd((), ((H, W, B[:3]), LABELS))
    with pytest.raises(TypeError, match="linear_cross_entropy: h and b must have the same dtype"):
        loss.fwd((), ((H, W, B.astype(np.float32)), LABELS))
    with pytest.raises(ValueError, match=r"linear_cross_entropy: labels must have shape \(2, 5, 7\)"):
        loss.fwd((), ((H, W), Q[..., :3]))
    with pytest.raises(ValueError, match=r"class_weights must have shape \(7,\)"):
        nnjax.linear_cross_entropy(class_weights=M[:3]).fwd((), ((H, W), LABELS))
