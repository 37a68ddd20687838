"""Difficult inputs of a loss: infinite logits, narrow labels, weight 0 on NaN, many rows in low precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.losses.cross_entropy import class_numbers
from nnjax.losses.reduction import total_weight

MSE, BCE, CE = nnjax.mean_squared_error(), nnjax.binary_cross_entropy(), nnjax.softmax_cross_entropy()
SMOOTH, FUSED = nnjax.softmax_cross_entropy(label_smoothing=0.1), nnjax.linear_cross_entropy()
Y = jax.random.normal(jax.random.key(0), (4, 3))
TARGETS = jax.random.uniform(jax.random.key(1), (4, 3))
LABELS = jnp.array([0, 2, 1, 1])
LOW = ("bfloat16", "float16")
INF = jnp.inf


def _by_hand(loss, x):
    value, residuals = loss.fwd((), x)
    return value, *jax.tree.leaves(loss.bwd(residuals, jnp.ones_like(value))[1])


def _by_jax(loss, x):
    """The same by jax.grad of the definition."""
    leaves, tree = jax.tree.flatten(x)
    floats = [i for i, a in enumerate(leaves) if jnp.issubdtype(a.dtype, jnp.floating)]

    def f(*values):
        filled = list(leaves)
        for i, v in zip(floats, values):
            filled[i] = v
        return loss.apply((), jax.tree.unflatten(tree, filled))

    value, cts = jax.value_and_grad(f, tuple(range(len(floats))))(*(leaves[i] for i in floats))
    return value, *cts


by_hand, by_jax = (jax.jit(f, static_argnums=0) for f in (_by_hand, _by_jax))  # one program each
EAGERLY = {by_hand: _by_hand, by_jax: _by_jax}
BOTH = pytest.mark.parametrize("run", EAGERLY, ids=["by_hand", "by_jax"])


def close(found, expected, tol=1e-6):
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        a, b = (np.asarray(v, np.float64) for v in (a, b))
        np.testing.assert_allclose(a, b, rtol=tol, atol=tol * np.max(np.abs(b), initial=0, where=np.isfinite(b)))


@BOTH
@pytest.mark.parametrize("smallest", [-INF, -3e38])
@pytest.mark.parametrize("top", [1.0, 3e38])
def test_a_logit_of_minus_infinity_is_a_class_that_is_not_there(run, smallest, top):
    y = jnp.array([[1.0, top, smallest], [0.5, smallest, -0.5]])
    kept = ([1.0, top], [0.5, -0.5])
    value, ct = run(CE, (y, jnp.array([1, 0])))
    expected = np.zeros((2, 3))
    p = [np.exp(np.array(k) - max(k)) / np.exp(np.array(k) - max(k)).sum() for k in kept]
    expected[0, :2], expected[1, [0, 2]] = p[0] - [0, 1], p[1] - [1, 0]
    close((value, ct), (-(np.log(p[0][1]) + np.log(p[1][0])) / 2, expected / 2))


@BOTH
def test_a_label_with_probability_zero_has_infinite_loss(run):
    y = jnp.array([[1.0, 2.0, -INF]])
    p = np.array([1, np.e, 0]) / (1 + np.e)
    for loss, label, q in ((CE, 2, [0, 0, 1]), (SMOOTH, 1, [0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3])):
        value, ct = run(loss, (y, jnp.array([label])))
        assert value == INF
        close((ct,), (p[None] - np.array([q]),))


@BOTH
def test_a_spread_wider_than_float32_is_smoothed_to_infinity_not_to_nan(run):
    value, ct = run(SMOOTH, (jnp.array([[3e38, -3e38]]), jnp.array([0])))
    assert value == INF
    close((ct,), ([[1 - 0.95, 0 - 0.05]],))


@BOTH
def test_infinite_logits_of_a_sigmoid_are_certain(run):
    y, t = jnp.array([[INF, -INF, INF, 2.0]]), jnp.array([[1.0, 0.0, 1.0, 0.0]])
    value, ct_y, ct_t = run(BCE, (y, t))
    close((value, ct_y), (np.log1p(np.exp(2.0)) / 4, [[0, 0, 0, 1 / (1 + np.exp(-2.0)) / 4]]))
    assert not jnp.isnan(ct_t).any()
    value, ct_y, _ = run(BCE, (y[:, :2], 1 - t[:, :2]))  # certain, and wrong
    assert value == INF
    close((ct_y,), ([[0.5, -0.5]],))
    value, ct_y, ct_t = run(BCE, (jnp.array([[3e38, -3e38]]), t[:, :2]))
    close((value, ct_y), (0, [[0, 0]]))
    close((ct_t,), ([[-1.5e38, 1.5e38]],))


@BOTH
@pytest.mark.parametrize(
    ("dtype", "n"),
    [
        *(("int8", n) for n in (5, 127, 128, 129, 300)),
        *(("uint8", n) for n in (5, 255, 256, 257, 300)),
        *((wider, 300) for wider in ("int16", "uint16", "int32", "uint32")),
    ],
)
@pytest.mark.slow
@pytest.mark.in_turn
def test_labels_may_be_too_narrow_for_the_number_of_classes(run, dtype, n):
    label = min(n - 1, int(jnp.iinfo(dtype).max))
    y = jax.random.normal(jax.random.key(0), (2, n))
    labels = jnp.array([label, 3], dtype)
    close(run(CE, (y, labels)), run(CE, (y, labels.astype(jnp.int32))), 1e-12)
    h, w = jax.random.normal(jax.random.key(1), (2, 3)), jax.random.normal(jax.random.key(2), (n, 3))
    expected = by_jax(CE, (h @ w.T, labels.astype(jnp.int32)))[0]
    found = run(FUSED, ((h, w), labels))
    close(found[:1], (expected,), 1e-5)
    assert jnp.isfinite(found[1]).all()
    assert float(found[2][label] @ h[0]) != 0


def test_65536_classes_in_uint16_and_labels_beyond_int32():
    value, ct = by_hand(CE, (jnp.zeros((2, 65536)), jnp.array([65535, 1], jnp.uint16)))
    assert float(value) == pytest.approx(np.log(65536), rel=1e-6)
    assert float(ct[0, 65535]) == pytest.approx(-0.5, rel=1e-3)
    ids, known = class_numbers(jnp.array([2**32 - 1, 4, 2**31], jnp.uint32), 5)
    assert ids.tolist() == [-1, 4, -1]
    assert known.tolist() == [False, True, False]


def test_labels_of_int64_do_not_wrap_around(x64):
    ids, known = class_numbers(jnp.array([2**32 + 1, 4, -1, 5, 2**63 - 1], jnp.int64), 5)
    assert ids.tolist() == [-1, 4, -1, -1, -1]
    y = jax.random.normal(jax.random.key(0), (2, 3), jnp.float64)
    close(by_hand(CE, (y, jnp.array([2, 1], jnp.int64))), by_jax(CE, (y, jnp.array([2, 1], jnp.int32))), 1e-12)
    value, ct = by_hand(CE, (y, jnp.array([2**32 + 1, 1], jnp.int64)))
    assert jnp.isnan(value)
    assert not ct[0].any()
    assert ct[1].any()


WEIGHTS = jnp.array([1.0, 0.0, 2.0, 0.0])
SEEN = np.array([0, 2])


@BOTH
@pytest.mark.parametrize(("bad", "wrap"), [(jnp.nan, EAGERLY.get), *((bad, lambda run: run) for bad in (jnp.nan, INF, -INF))])
@pytest.mark.parametrize("name", ["mse", "bce", "ce", "smooth", "fused"])
@pytest.mark.repeats
def test_examples_of_weight_0_are_ignored(run, wrap, bad, name):
    loss = {"mse": MSE, "bce": BCE, "ce": CE, "smooth": SMOOTH, "fused": FUSED}[name]
    y = Y.at[1].set(bad).at[3, 1].set(bad)
    if name in ("mse", "bce"):
        x, rows = (y, TARGETS.at[3].set(bad), WEIGHTS), (Y[SEEN], TARGETS[SEEN], WEIGHTS[SEEN])
    elif name == "fused":
        w = jax.random.normal(jax.random.key(3), (5, 3))
        x, rows = ((y, w), LABELS, WEIGHTS), ((Y[SEEN], w), LABELS[SEEN], WEIGHTS[SEEN])
    else:
        x, rows = (y, LABELS, WEIGHTS), (Y[SEEN], LABELS[SEEN], WEIGHTS[SEEN])
    found, expected = wrap(run)(loss, x), by_jax(loss, rows)
    close(found[:1], expected[:1])
    for ct, e in zip(found[1:], expected[1:]):
        if ct.shape[0] == 4:
            assert ct.ndim == 1 or not ct[jnp.array([1, 3])].any()
            ct = ct[SEEN]
        close((ct,), (e,), 1e-5)  # that of a weight is a difference of losses
    assert all(jnp.isfinite(ct).all() for ct in found[1:])


@BOTH
@pytest.mark.parametrize("loss", [MSE, BCE, CE], ids=["mse", "bce", "ce"])
def test_all_zero_weights_on_nan_give_nan_and_zero_gradients(run, loss):
    labels = LABELS if loss is CE else jnp.full_like(TARGETS, jnp.nan)
    value, *cts = run(loss, (jnp.full_like(Y, jnp.nan), labels, jnp.zeros(4)))
    assert jnp.isnan(value)
    assert not any(ct.any() for ct in cts)


@BOTH
def test_examples_of_weight_0_are_ignored_under_vmap_too(run):
    y = jnp.stack([Y.at[1].set(jnp.nan), Y.at[3].set(INF)])
    found = jax.vmap(lambda y: run(CE, (y, LABELS, WEIGHTS)))(y)
    expected = run(CE, (Y, LABELS, WEIGHTS))
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, jnp.stack([b, b]), rtol=1e-6, atol=1e-7)


@BOTH
@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_the_mean_over_many_rows_is_that_of_float64(run, dtype, weighted):
    n = 9000
    y = jnp.zeros((n, 4), dtype).at[:, 0].set(12)
    weights = (jnp.where(jnp.arange(n) % 3 == 0, 0, 40).astype(dtype),) if weighted else ()  # 240,000 in all
    rows = 6000 if weighted else n
    value, ct, *ct_weights = run(CE, (y, jnp.ones(n, jnp.int32), *weights))
    assert value.dtype == ct.dtype == dtype
    assert float(value) == pytest.approx(12, rel=0.004)
    # near 1 / n float16 has steps of 6e-8
    np.testing.assert_allclose(np.asarray(ct[1], np.float64), np.array([1, -1, 0, 0]) / rows, atol=1e-6)
    assert all(jnp.isfinite(c).all() for c in ct_weights)
    t = jnp.where(jnp.arange(n)[:, None] % 2 == 0, 200, -200).astype(dtype)  # whose squares overflow in float16
    value, ct, *_ = run(MSE, (jnp.zeros((n, 1), dtype), t, *weights))
    assert float(value) == pytest.approx(40000, rel=0.004)
    np.testing.assert_allclose(np.asarray(ct[1:2], np.float64), [[400 / rows]], rtol=0.01)
    value, ct, *_ = run(BCE, (jnp.full((n, 1), 20, dtype), jnp.zeros((n, 1), dtype), *weights))
    assert float(value) == pytest.approx(20, rel=0.004)


@BOTH
@pytest.mark.parametrize("dtype", LOW)
def test_the_mean_over_many_outputs_is_that_of_float64(run, dtype):
    n = 70_000
    value, ct, _ = run(MSE, (jnp.full((2, n), 3, dtype), jnp.zeros((2, n), dtype)))
    assert float(value) == 9
    assert float(ct[0, 0]) == pytest.approx(3 / n, rel=0.01)
    value, *_ = run(BCE, (jnp.zeros((1, n), dtype), jnp.zeros((1, n), dtype)))
    assert float(value) == pytest.approx(np.log(2), rel=0.004)


@BOTH
@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("vocab", [200, 400])
@pytest.mark.repeats
def test_the_fused_loss_of_many_rows_keeps_the_small_probabilities(run, dtype, vocab):
    """p / n of a flat softmax is below the smallest float16 number; the sum over classes of p w is not."""
    n = 8192
    h, w = jnp.zeros((n, 2), dtype), jnp.ones((vocab, 2), dtype).at[0].set(-3)
    value, ct_h, ct_w = run(FUSED, ((h, w), jnp.zeros(n, jnp.int32)))
    assert float(value) == pytest.approx(np.log(vocab), rel=0.004)
    expected = ((vocab - 4) / vocab + 3) / n
    np.testing.assert_allclose(np.asarray(ct_h, np.float64), np.full((n, 2), expected), rtol=0.01)
    h = jnp.ones((n, 2), dtype)
    _, _, ct_w = run(FUSED, ((h, jnp.ones((vocab, 2), dtype)), jnp.zeros(n, jnp.int32)))
    np.testing.assert_allclose(np.asarray(ct_w[1:], np.float64), np.full((vocab - 1, 2), 1 / vocab), rtol=0.01)
    np.testing.assert_allclose(np.asarray(ct_w[0], np.float64), np.full(2, 1 / vocab - 1), rtol=0.01)


@pytest.mark.parametrize("dtype", LOW)
def test_total_weight_counts_beyond_the_limits_of_low_precision(dtype):
    y, labels = jnp.zeros((5001, 2), dtype), jnp.zeros(5001, jnp.int32)
    assert total_weight((y, labels)) == 5001
    assert total_weight((y, labels, jnp.ones(5001, dtype))) == 5001
    assert total_weight((y, labels, jnp.full(5001, 100, dtype))) == 500_100
    assert total_weight(((y, y), labels)).dtype == jnp.float32


@BOTH
@pytest.mark.parametrize("rows", [0, 1])
def test_empty_batches_batches_of_one_and_empty_outputs(run, rows):
    for loss, labels in ((MSE, TARGETS), (BCE, TARGETS), (CE, LABELS)):
        for dtype in ("float32", *LOW):
            t = labels[:rows] if loss is CE else labels[:rows].astype(dtype)
            value, ct, *_ = run(loss, (Y[:rows].astype(dtype), t))
            assert value.dtype == ct.dtype == dtype
            assert bool(jnp.isnan(value)) is (rows == 0)
            assert ct.shape == (rows, 3)
    value, ct, _ = run(MSE, (Y[:, :0], Y[:, :0]))
    assert jnp.isnan(value)
    assert ct.shape == (4, 0)
    with pytest.raises(ValueError, match=r"softmax_cross_entropy: y must have at least one class, got float32 \(4, 0\)"):
        run(CE, (Y[:, :0], LABELS))


@pytest.mark.in_turn
def test_float64_stays_float64(x64):
    y, t, w = (np.asarray(a, np.float64) for a in (Y, TARGETS, WEIGHTS))
    for loss, labels in ((MSE, t), (BCE, t), (CE, np.asarray(LABELS)), (SMOOTH, np.asarray(LABELS))):
        x = tuple(map(jnp.asarray, (y, labels, w)))
        close(by_hand(loss, x), by_jax(loss, x), 1e-13)
        assert by_hand(loss, x)[0].dtype == jnp.float64
