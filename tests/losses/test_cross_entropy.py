"""The cross-entropy of a softmax with all its options, against a plain loop over examples in float64."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.losses.cross_entropy import capped, class_numbers, ignored

RNG = np.random.default_rng(0)
Y, Q = RNG.standard_normal((6, 4)) * 3, RNG.random((6, 4))
LABELS = np.array([0, 3, -100, 1, 2, -100])
WEIGHTS, M = np.array([1.0, 0.5, 2.0, 0.0, 3.0, 1.0]), np.array([0.5, 2.0, -0.3, 1.0])


def looped(y, labels, weights=None, m=None, a=0.0, z=0.0, cap=None, ignore=-100, reduction="mean"):
    """The definition, one number at a time."""
    n, losses, counts = y.shape[-1], [], []
    for i, row in enumerate(y):
        w, soft = 1.0 if weights is None else weights[i], labels.ndim == 2
        if w == 0 or (not soft and labels[i] == ignore):
            losses.append(0.0)
            counts.append(0.0)
            continue
        s = [v if cap is None else cap * math.tanh(v / cap) for v in row]
        lse = math.log(sum(math.exp(v) for v in s))
        q = list(labels[i]) if soft else [float(j == labels[i]) for j in range(n)]
        count = 1.0 if soft or m is None else m[labels[i]]
        loss = sum((1 if m is None else m[j]) * ((1 - a) * q[j] + a / n) * (lse - s[j]) for j in range(n))
        losses.append(w * (loss + z * count * lse**2))
        counts.append(w * count)
    if reduction == "none":
        return np.array(losses)
    return sum(losses) / (sum(counts) if reduction == "mean" else 1)


OPTIONS = {
    "plain": {},
    "class weights": {"m": M},
    "smoothed": {"a": 0.2},
    "smoothed class weights": {"a": 0.2, "m": M},
    "z": {"z": 0.3},
    "capped": {"cap": 2.0},
    "all": {"a": 0.1, "m": M, "z": 0.3, "cap": 2.5},
}


def made(m=None, a=0.0, z=0.0, cap=None, reduction="mean", make=nnjax.softmax_cross_entropy):
    return make(class_weights=m, label_smoothing=a, z_loss=z, softcap=cap, reduction=reduction)


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("soft", [False, True], ids=["numbers", "probabilities"])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.repeats
def test_values_are_those_of_a_loop_over_examples(name, soft, weighted, x64):
    labels, weights = (Q if soft else LABELS), (WEIGHTS,) if weighted else ()
    losses = {reduction: made(**OPTIONS[name], reduction=reduction) for reduction in ("mean", "sum", "none")}
    found = jax.jit(lambda x: {r: (loss.apply((), x), loss.fwd((), x)[0]) for r, loss in losses.items()})((Y, labels, *weights))
    for reduction, values in found.items():
        expected = looped(Y, labels, *weights, **OPTIONS[name], reduction=reduction)
        for value in values:
            np.testing.assert_allclose(value, expected, rtol=1e-12)


@pytest.mark.parametrize("soft", [False, True], ids=["numbers", "probabilities"])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.repeats
def test_gradients_are_differences_of_values(name, soft, x64, by_hand):
    labels = Q if soft else LABELS
    ct, step = RNG.standard_normal(6), 1e-6
    loss = made(**OPTIONS[name], reduction="none")
    _, (ct_y, *ct_q) = by_hand(loss, (Y, labels, WEIGHTS), jnp.asarray(ct))
    f = lambda y, q: looped(y, q, WEIGHTS, **OPTIONS[name], reduction="none") @ ct  # noqa: E731
    for i, j in itertools.product(range(6), range(4)):
        e = np.zeros((6, 4))
        e[i, j] = step
        assert float(ct_y[i, j]) == pytest.approx((f(Y + e, labels) - f(Y - e, labels)) / (2 * step), abs=1e-7)
        if soft:
            assert float(ct_q[0][i, j]) == pytest.approx((f(Y, Q + e) - f(Y, Q - e)) / (2 * step), abs=1e-7)
    assert len(ct_q) == 1 + soft  # and that of the weights


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["plain", "all"])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_what_is_ignored_may_hold_anything(bad, name, x64, by_hand, by_jax, close):
    seen, spoilt = LABELS != -100, np.where((LABELS == -100)[:, None], bad, Y)
    for reduction in ("mean", "sum", "none"):
        loss = made(**OPTIONS[name], reduction=reduction)
        value, (ct_y,) = by_hand(loss, (spoilt, LABELS))
        right, (right_ct,) = by_hand(loss, (Y[seen], LABELS[seen]))
        close((value[seen] if reduction == "none" else value, ct_y[seen]), (right, right_ct))
        assert not ct_y[~seen].any()
        close(by_jax(lambda x, loss=loss: loss.apply((), x), (jnp.asarray(spoilt), jnp.asarray(LABELS))), (value, [ct_y]))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_nothing_but_ignored_examples_is_the_empty_batch(reduction, by_hand):
    value, (ct_y,) = by_hand(nnjax.softmax_cross_entropy(reduction=reduction), (jnp.ones((3, 4)), jnp.full(3, -100)))
    assert not ct_y.any()
    assert jnp.isnan(value) if reduction == "mean" else not value.any()


def test_another_number_may_be_ignored_or_none(by_hand, close):
    loss = nnjax.softmax_cross_entropy(ignore_index=1)
    labels, y = jnp.array([0, 1, 2, 1], jnp.uint8), jnp.asarray(Y[:4], jnp.float32)
    kept = np.array([0, 2])
    close(by_hand(loss, (y, labels))[0], by_hand(nnjax.softmax_cross_entropy(), (y[kept], labels[kept]))[0], 1e-6)
    with pytest.raises(ValueError, match=r"labels must lie in 0.*got -100.*ignore_index"):
        nnjax.softmax_cross_entropy(ignore_index=None).apply((), (y, jnp.array([0, -100, 1, 2])))


@pytest.mark.parametrize(("dtype", "held"), [("int8", True), ("uint8", False), ("int64", True), ("uint32", False)])
def test_a_number_that_labels_cannot_hold_is_never_ignored(dtype, held, x64):
    found = ignored(jnp.array([3, -100 if held else 156], dtype), -100)  # 156 is -100 in eight bits
    assert (found is not None) is held
    assert found is None or found.tolist() == [False, True]
    assert class_numbers(jnp.array([3, 127], dtype), 4)[0].tolist() == [3, -1]


@pytest.mark.parametrize("soft", [False, True], ids=["numbers", "probabilities"])
@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.repeats
def test_a_class_that_is_not_there_is_as_if_it_were_cut_out(soft, cap, x64, by_hand, close):
    y, q = np.insert(Y, 2, -np.inf, 1), np.insert(Q, 2, 0, 1)
    labels = np.where(LABELS >= 2, LABELS + 1, LABELS)
    loss = made(cap=cap, z=0.1)
    value, (ct_y, *ct_q) = by_hand(loss, (y, q if soft else labels))
    right, (right_y, *right_q) = by_hand(loss, (Y, Q if soft else LABELS))
    close((value, np.delete(ct_y, 2, 1)), (right, right_y))
    assert not ct_y[:, 2].any()
    if soft:
        close(np.delete(ct_q[0], 2, 1), right_q[0])
        assert not ct_q[0][:, 2].any()


def test_a_class_of_weight_0_counts_nothing(x64, by_hand, close):
    m = np.array([1.0, 2.0, 1.0, 0.0])
    y, labels = np.where((LABELS == 3)[:, None] & (np.arange(4) == 3), -np.inf, Y), LABELS
    value, (ct_y,) = by_hand(nnjax.softmax_cross_entropy(class_weights=m), (y, labels))
    kept = labels != 3
    right, (right_y,) = by_hand(nnjax.softmax_cross_entropy(class_weights=m), (Y[kept], labels[kept]))
    close((value, ct_y[kept]), (right, right_y))
    assert not ct_y[~kept].any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_is_computed_in_float32(dtype, by_hand):
    y, q = jnp.zeros((3000, 4), dtype).at[:, 0].set(12), jnp.full((3000, 4), 0.25, dtype)
    value, (ct_y, ct_q) = by_hand(nnjax.softmax_cross_entropy(class_weights=[1, 1, 1, 1]), (y, q))
    assert value.dtype == ct_y.dtype == ct_q.dtype == dtype
    assert float(value) == pytest.approx(9, rel=0.004)
    np.testing.assert_allclose(np.asarray(ct_q[0], np.float64) * 3000, [0, 12, 12, 12], rtol=0.01, atol=0.01)


@pytest.mark.in_turn
def test_numpy_and_jax_arrays_give_the_same(by_hand, close):
    y, labels, m = Y.astype(np.float32), LABELS.astype(np.int16), M.astype(np.float32)
    found = by_hand(nnjax.softmax_cross_entropy(class_weights=m), (y, labels))
    close(
        found, by_hand(nnjax.softmax_cross_entropy(class_weights=jnp.asarray(m)), (jnp.asarray(y), jnp.asarray(labels))), 1e-7
    )
    close(found, by_hand(nnjax.softmax_cross_entropy(class_weights=list(M)), (y, labels)), 1e-7)
    loss = nnjax.softmax_cross_entropy(class_weights=m)
    residuals = loss.fwd((), (y, labels))[1]
    close(found[1], loss.bwd(residuals, jnp.ones(()))[1][:1], 1e-6)


def test_a_cap_bends_scores_but_not_what_is_not_there():
    s, slope = capped(jnp.array([0.0, 1e30, -1e30, -jnp.inf, jnp.inf]), 2.0)
    assert s.tolist() == [0, 2, -2, -math.inf, 2]
    assert slope.tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"label_smoothing": "0.1"}, "label_smoothing"),
        ({"z_loss": -1}, "z_loss"),
        ({"softcap": 0.0}, "softcap"),
        ({"softcap": float("inf")}, "softcap"),
        ({"ignore_index": 0.5}, "ignore_index"),
        ({"reduction": "average"}, "reduction.*mean"),
        ({"reduction": None}, "reduction"),
    ],
)
@pytest.mark.parametrize("make", [nnjax.softmax_cross_entropy, nnjax.linear_cross_entropy])
def test_bad_options_are_refused(make, options, words):
    with pytest.raises(ValueError, match=f"{make.__name__}: {words}"):
        make(**options)


@pytest.mark.parametrize(
    ("options", "x", "error", "words"),
    [
        ({}, (Y, Q[:, :3]), ValueError, r"labels must have shape \(6, 4\)"),
        ({}, (Y, Q.astype(np.float32)), TypeError, "labels and y.*float32 and float64"),
        ({}, (Y, Q[:, 0]), TypeError, "labels must be integer class numbers.*probabilities"),
        ({}, (Y, LABELS[:, None]), ValueError, r"labels must have shape \(6,\)"),
        ({"class_weights": M[:3]}, (Y, LABELS), ValueError, r"class_weights must have shape \(4,\)"),
        ({"class_weights": 2.0}, (Y, LABELS), ValueError, r"class_weights must have shape \(4,\)"),
    ],
)
def test_what_does_not_fit_is_refused(options, x, error, words, x64):
    with pytest.raises(error, match=f"softmax_cross_entropy: {words}"):
        nnjax.softmax_cross_entropy(**options).apply((), x)


def test_class_weights_that_are_no_numbers_are_refused():
    with pytest.raises(TypeError, match="class_weights must be"):
        nnjax.softmax_cross_entropy(class_weights=np.array([True, False]))
    with pytest.raises(TypeError, match="class_weights must be an array"):
        nnjax.softmax_cross_entropy(class_weights="balanced")


def test_a_wrong_cotangent_of_probabilities_is_found():
    loss = nnjax.softmax_cross_entropy()
    x = jnp.asarray(Y, jnp.float32), jnp.asarray(Q, jnp.float32)
    wrong = loss._replace(bwd=lambda residuals, ct: ((), (loss.bwd(residuals, ct)[1][0], jnp.zeros((6, 4), jnp.float32))))
    report = nnjax.check_layer(wrong, (), x, dtypes=["float32"], transforms=["jit"], witnesses=())
    assert {row.leaf for row in report.failures} == {"x[1]"}


def test_under_vmap_and_in_a_scan_class_weights_are_shared(by_hand, close):
    loss, y = nnjax.softmax_cross_entropy(class_weights=M.astype(np.float32)), jnp.asarray(Y.reshape(2, 3, 4), jnp.float32)
    labels = jnp.asarray(LABELS.reshape(2, 3))
    f = lambda y, labels: by_hand(loss, (y, labels))  # noqa: E731
    expected = [f(a, b) for a, b in zip(y, labels)]
    mapped = jax.vmap(f)(y, labels)
    _, scanned = jax.lax.scan(lambda carry, x: (carry, f(*x)), 0, (y, labels))
    for i in range(2):
        close(jax.tree.map(lambda a, i=i: a[i], mapped), expected[i], 1e-6)
        close(jax.tree.map(lambda a, i=i: a[i], scanned), expected[i], 1e-6)
