import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.check.layers import forget
from nnjax.check.mutation.mutants import hunt
from nnjax.fast.cpu import linear_cross_entropy as cpu
from nnjax.losses.reduction import total_weight

LOSS, PLAIN = nnjax.linear_cross_entropy(), nnjax.softmax_cross_entropy()
RNG = np.random.default_rng(0)
H, W = (jnp.asarray(RNG.standard_normal(shape).astype(np.float32)) for shape in ((2, 5, 4), (7, 4)))
LABELS = jnp.asarray(RNG.integers(0, 7, (2, 5)), jnp.int32)
WEIGHTS = jnp.asarray(RNG.integers(0, 3, (2, 5)).astype(np.float32))
QUICK = {"dtypes": ["float64", "float32"], "transforms": ["jit"]}


def gradient(x):
    value, residuals = LOSS.fwd((), x)
    return value, LOSS.bwd(residuals, jnp.ones_like(value))[1]


@pytest.mark.parametrize("weights", [(), (WEIGHTS,)], ids=["plain", "weighted"])
@pytest.mark.parametrize("few", [6, 7])
@pytest.mark.parametrize("rows", [1, 3, 10])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_any_number_of_rows_at_a_time_gives_the_loss_of_the_product(monkeypatch, weights, few, rows):
    monkeypatch.setattr(cpu, "rows_at_a_time", lambda n, vocab: rows)
    monkeypatch.setattr(cpu, "FEW", few)
    expected, pull = jax.vjp(lambda h, w: PLAIN.apply((), (h @ w.T, LABELS, *weights)), H, W)
    value, (cts, *_) = gradient(((H, W), LABELS, *weights))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), cts, pull(jnp.ones(())))


@pytest.mark.parametrize(
    "x",
    [((H[:0], W), LABELS[:0]), ((H[0, 0], W), LABELS[0, 0]), ((H[:1, :1], W[:1]), jnp.zeros((1, 1), jnp.int32))],
    ids=["empty", "one row without leading axes", "one class"],
)
def test_edge_shapes_pass_the_check(x):
    nnjax.check_layer(LOSS, (), x, **QUICK, witnesses=()).raise_if_failed()


@pytest.mark.parametrize("few", [6, 7])
@pytest.mark.slow
@pytest.mark.in_turn
def test_chunks_pass_the_check_and_every_mutant_is_killed(monkeypatch, few):
    forget()  # programs compiled for other sizes
    monkeypatch.setattr(cpu, "FEW", few)
    monkeypatch.setattr(cpu, "rows_at_a_time", lambda n, vocab: 4)
    x = ((H, W), LABELS, WEIGHTS)
    nnjax.check_layer(LOSS, (), x, **QUICK).raise_if_failed()
    outcomes = hunt(LOSS, (), x)
    assert not [o for o in outcomes if o.status == "survived"], outcomes


def test_the_products_are_never_kept():
    h, w = jnp.ones((512, 16)), jnp.ones((2**15, 16))
    compiled = jax.jit(gradient).lower(((h, w), jnp.zeros(512, jnp.int32))).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 512 * 2**15 * 4 * 0.6


@pytest.mark.parametrize("weights", [(), (jnp.arange(7.0),)])
def test_a_width_of_zero_gives_the_loss_of_equal_logits(weights):
    x = ((jnp.ones((7, 0)), jnp.ones((5, 0))), jnp.arange(7, dtype=jnp.int32) % 5, *weights)
    for loss in (nnjax.linear_cross_entropy(), nnjax.plain(nnjax.linear_cross_entropy())):
        value, residuals = loss.fwd((), x)
        assert float(value) == pytest.approx(float(np.log(5)))
        ((ct_h, ct_w), *_) = loss.bwd(residuals, jnp.ones_like(value))[1]
        assert (ct_h.shape, ct_w.shape) == ((7, 0), (5, 0))


@pytest.mark.in_turn
def test_empty_batches_and_zero_weights_give_nan_and_zero_gradients():
    for x in (((H[:0], W), LABELS[:0]), ((H, W), LABELS, jnp.zeros((2, 5)))):
        value, (cts, *_) = gradient(x)
        assert jnp.isnan(value)
        assert not any(ct.any() for ct in cts)
    assert total_weight(((H, W), LABELS)) == 10
    assert total_weight(((H, W), LABELS, WEIGHTS)) == WEIGHTS.sum()


@pytest.mark.parametrize("wrong", [7, -1])
def test_a_label_out_of_range_raises_when_known_and_has_no_gradient_under_jit(wrong):
    labels = LABELS.at[1, 2].set(wrong)
    with pytest.raises(ValueError, match=rf"linear_cross_entropy: labels must lie in 0 \.\.\. 6, .*got {wrong}"):
        LOSS.apply((), ((H, W), labels))
    value, ((ct_h, ct_w), _) = jax.jit(gradient)(((H, W), labels))
    assert jnp.isnan(value)
    assert jnp.isnan(jax.jit(lambda x: LOSS.apply((), x))(((H, W), labels)))
    assert not ct_h[1, 2].any()
    assert ct_h[0].any()
    assert jnp.isfinite(ct_w).all()
    weights = jnp.ones((2, 5)).at[1, 2].set(0)
    assert jnp.isfinite(jax.jit(gradient)(((H, W), labels, weights))[0])


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ((H, LABELS), TypeError, r"x must be \(\(h, w\), labels\) or .*got tuple; a model made with fused=True"),
        (((H, W.T), LABELS), ValueError, r"h must have shape \(..., n\) and w \(vocabulary, n\), .* is passed as w.T"),
        (((H, W), LABELS[0]), ValueError, r"labels must have shape \(2, 5\), got int32 \(5,\)"),
        (((H, W), LABELS.astype(jnp.float32)), TypeError, r"labels must be integer class numbers, got float32"),
        (((H, W.astype(jnp.bfloat16)), LABELS), TypeError, r"h and w must have the same dtype, got float32 and bfloat16"),
        (((H, W), LABELS, WEIGHTS[0]), ValueError, r"weights must have shape \(2, 5\)"),
    ],
)
def test_bad_input_is_refused(x, error, message):
    with pytest.raises(error, match=f"linear_cross_entropy: {message}"):
        LOSS.fwd((), x)
