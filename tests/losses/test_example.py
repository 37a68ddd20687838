import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nnjax
from nnjax.losses.reduction import total_weight

MSE, BCE, CE = nnjax.mean_squared_error(), nnjax.binary_cross_entropy(), nnjax.softmax_cross_entropy()
Y = jax.random.normal(jax.random.key(0), (6, 4))
TARGETS = jax.random.uniform(jax.random.key(1), (6, 4))
LABELS = jnp.array([0, 3, 1, 1, 2, 0])


@pytest.mark.in_turn
def test_values_are_those_of_optax():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = {
            "mse": optax.losses.squared_error(Y, TARGETS).mean(),
            "bce": optax.losses.sigmoid_binary_cross_entropy(Y, TARGETS).mean(),
            "ce": optax.losses.softmax_cross_entropy_with_integer_labels(Y, LABELS).mean(),
            "smooth": optax.losses.softmax_cross_entropy(Y, optax.smooth_labels(jax.nn.one_hot(LABELS, 4), 0.1)).mean(),
        }
    np.testing.assert_allclose(MSE.apply((), (Y, TARGETS)), expected["mse"], rtol=1e-6)
    np.testing.assert_allclose(BCE.apply((), (Y, TARGETS)), expected["bce"], rtol=1e-6)
    np.testing.assert_allclose(CE.apply((), (Y, LABELS)), expected["ce"], rtol=1e-6)
    smooth = nnjax.softmax_cross_entropy(label_smoothing=0.1)
    np.testing.assert_allclose(smooth.apply((), (Y, LABELS)), expected["smooth"], rtol=1e-6)


@pytest.mark.parametrize(("loss", "labels"), [(MSE, TARGETS), (BCE, TARGETS), (CE, LABELS)], ids=["mse", "bce", "ce"])
@pytest.mark.repeats
def test_weights_of_zero_leave_examples_out_and_means_of_batches_combine(loss, labels):
    weights = jnp.array([1.0, 0.0, 2.0, 0.0, 1.0, 3.0])
    keep = np.array([0, 2, 4, 5])
    value = loss.apply((), (Y, labels, weights))
    np.testing.assert_allclose(value, loss.apply((), (Y[keep], labels[keep], weights[keep])), rtol=1e-6)
    halves = [(Y[s], labels[s], weights[s]) for s in (slice(0, 2), slice(2, 6))]
    totals = [total_weight(x) for x in halves]
    combined = sum(t * loss.apply((), x) for t, x in zip(totals, halves)) / sum(totals)
    np.testing.assert_allclose(value, combined, rtol=1e-6)
    assert total_weight((Y, labels)) == 6


@pytest.mark.parametrize(("loss", "labels"), [(MSE, TARGETS), (BCE, TARGETS), (CE, LABELS)], ids=["mse", "bce", "ce"])
def test_an_empty_batch_and_all_zero_weights_give_nan_and_zero_gradients(loss, labels):
    value, residuals = loss.fwd((), (Y[:0], labels[:0]))
    assert jnp.isnan(value)
    assert loss.bwd(residuals, jnp.ones(()))[1][0].shape == (0, 4)
    value, residuals = loss.fwd((), (Y, labels, jnp.zeros(6)))
    assert jnp.isnan(value)
    cts = loss.bwd(residuals, jnp.ones(()))[1]
    assert not any(ct.any() for ct in cts if ct is not None)


def test_the_gradient_of_cross_entropy_is_p_minus_one_hot():
    _, residuals = CE.fwd((), (Y, LABELS))
    (_, (ct_y, ct_labels)) = CE.bwd(residuals, jnp.ones(()))
    np.testing.assert_allclose(ct_y * 6, jax.nn.softmax(Y) - jax.nn.one_hot(LABELS, 4), atol=1e-6)
    assert ct_labels is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_log_of_zero_at_ten_thousand(dtype):
    y = jnp.array([[1e4, -1e4], [-1e4, 1e4]], dtype)
    for loss, labels in ((BCE, jnp.array([[1, 0], [1, 0]], dtype)), (CE, jnp.array([0, 0])), (MSE, y)):
        value, residuals = loss.fwd((), (y, labels))
        assert jnp.isfinite(value)
        assert jnp.isfinite(loss.bwd(residuals, jnp.ones((), dtype))[1][0]).all()
    # one sure and right, one sure and wrong by 20,000 (softmax) or by 10,000 a logit (sigmoid)
    assert float(CE.apply((), (y, jnp.array([0, 0])))) == pytest.approx(1e4, rel=0.01)


def test_a_confident_right_answer_keeps_its_tiny_gradient():
    y, t = jnp.array([[30.0, -30.0]]), jnp.array([[1.0, 0.0]])
    _, residuals = BCE.fwd((), (y, t))
    np.testing.assert_allclose(BCE.bwd(residuals, jnp.ones(()))[1][0], [[-np.exp(-30) / 2, np.exp(-30) / 2]], rtol=1e-5)


@pytest.mark.in_turn
def test_a_label_out_of_range_raises_when_known_and_is_nan_without_gradient_under_jit():
    for wrong in (4, -1):
        labels = LABELS.at[2].set(wrong)
        with pytest.raises(ValueError, match=rf"labels must lie in 0 \.\.\. 3, as y has 4 classes, got {wrong}; correct"):
            CE.apply((), (Y, labels))
        value, ct_y = jax.jit(lambda y, labels: _value_and_ct(CE, y, labels))(Y, labels)
        assert jnp.isnan(value)
        assert not ct_y[2].any()
        assert ct_y[1].any()
        weights = jnp.ones(6).at[2].set(0)
        assert jnp.isfinite(CE.apply((), (Y, labels, weights)))
        assert jnp.isfinite(jax.jit(lambda *x: CE.apply((), x))(Y, labels, weights))


def _value_and_ct(loss, y, labels):
    value, residuals = loss.fwd((), (y, labels))
    return value, loss.bwd(residuals, jnp.ones_like(value))[1][0]


@pytest.mark.parametrize(
    ("loss", "x", "error", "message"),
    [
        (
            CE,
            (Y, LABELS.astype(jnp.float32)),
            TypeError,
            r"labels must be integer class numbers, got float32 \(6,\); convert",
        ),
        (CE, (Y, LABELS[:5]), ValueError, r"labels must have shape \(6,\), got int32 \(5,\)"),
        (CE, Y, TypeError, r"x must be the tuple \(y, labels\) or \(y, labels, weights\), got float32 \(6, 4\)"),
        (CE, (Y,), TypeError, r"x must be the tuple \(y, labels\).*got 1 entries"),
        (CE, (Y, LABELS, jnp.ones(5)), ValueError, r"weights must have shape \(6,\), got float32 \(5,\)"),
        (CE, (Y, LABELS, jnp.ones(6, int)), TypeError, r"weights must be real floating point, got int32"),
        (MSE, (Y, LABELS), TypeError, r"labels must be real floating point, got int32"),
        (MSE, (Y, TARGETS[:, :3]), ValueError, r"labels must have shape \(6, 4\), got float32 \(6, 3\)"),
        (
            BCE,
            (Y, TARGETS.astype(jnp.bfloat16)),
            TypeError,
            r"labels and y must have the same dtype, got bfloat16 and float32",
        ),
        (BCE, (Y.astype(int), TARGETS), TypeError, r"y must be real floating point, got int32"),
        (MSE, (jnp.ones(()), jnp.ones(())), ValueError, r"y must have a last axis of outputs, got a scalar"),
    ],
)
def test_bad_input_is_refused(loss, x, error, message):
    with pytest.raises(error, match=f"{loss.name}: {message}"):
        loss.apply((), x)


@pytest.mark.parametrize("a", [-0.1, 1.0, "0.1"])
def test_bad_smoothing_is_refused(a):
    with pytest.raises(ValueError, match=r"label_smoothing must satisfy 0 <= a < 1, got"):
        nnjax.softmax_cross_entropy(label_smoothing=a)
