import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.check.vjp import compare_gradients
from nnjax.grad import accumulate, add_l1, add_l2, lower_precision

MODEL, LOSS = nnjax.mlp([4, 6, 3], nnjax.gelu()), nnjax.softmax_cross_entropy()
X, LABELS = jax.random.normal(jax.random.key(1), (5, 4)), jnp.array([0, 2, 1, 1, 0])
PARAMS = MODEL.init(jax.random.key(0))


def close(a, b):
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-5, atol=1e-7), a, b)


@pytest.mark.parametrize(("weighted", "wrap"), [(False, jax.jit), (True, jax.jit), (True, lambda f: f)])
@pytest.mark.repeats
def test_hand_and_reference_agree_in_value_output_and_gradient(weighted, wrap):
    weights = jnp.array([1.0, 0, 2, 1, 0.5]) if weighted else None
    hand = wrap(nnjax.value_and_grad(MODEL, LOSS, has_aux=True))
    reference = wrap(nnjax.reference_value_and_grad(MODEL, LOSS, has_aux=True))
    close(hand(PARAMS, X, LABELS, weights=weights), reference(PARAMS, X, LABELS, weights=weights))
    (value, y), grads = hand(PARAMS, X, LABELS, weights=weights)
    close((value, grads), wrap(nnjax.value_and_grad(MODEL, LOSS))(PARAMS, X, LABELS, weights=weights))
    close(y, MODEL.apply(PARAMS, X))


def test_an_empty_batch_has_value_nan_and_zero_gradients():
    for f in (nnjax.value_and_grad(MODEL, LOSS), nnjax.reference_value_and_grad(MODEL, LOSS)):
        value, grads = f(PARAMS, X[:0], LABELS[:0])
        assert jnp.isnan(value)
        assert not any(g.any() for g in jax.tree.leaves(grads))


def test_dropout_without_a_key_warns_and_with_one_agrees():
    model = nnjax.serial(nnjax.dense(4, 8), nnjax.residual(nnjax.dropout(0.5)), nnjax.dense(8, 3))
    params, key = model.init(jax.random.key(0)), jax.random.key(2)
    for make in (nnjax.value_and_grad, nnjax.reference_value_and_grad):
        with pytest.warns(UserWarning, match="dropout but no key was given"):
            make(model, LOSS)(params, X, LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        close(
            *(make(model, LOSS)(params, X, LABELS, key=key) for make in (nnjax.value_and_grad, nnjax.reference_value_and_grad))
        )


def test_l2_is_the_gradient_of_its_penalty_and_leaves_biases_alone():
    hand = add_l2(nnjax.value_and_grad(MODEL, LOSS, has_aux=True), 0.3)

    def objective(p):
        squares = sum(jnp.vdot(w, w) for w in jax.tree.leaves(p) if w.ndim == 2)
        return LOSS.apply((), (MODEL.apply(p, X), LABELS)) + 0.15 * squares

    (value, _), grads = hand(PARAMS, X, LABELS)
    close((value, grads), jax.value_and_grad(objective)(PARAMS))
    close(grads[0].b, nnjax.value_and_grad(MODEL, LOSS)(PARAMS, X, LABELS)[1][0].b)
    with pytest.raises(ValueError, match="coefficient must be at least 0, got -1"):
        add_l2(hand, -1)


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize(
    "weights", [None, jnp.array([1.0, 0, 2, 1]), jnp.array([0.0, 0, 3, 1])], ids=["plain", "weighted", "0"]
)
@pytest.mark.repeats
def test_microbatches_add_up_to_the_batch_exactly(parts, weights):
    f = nnjax.value_and_grad(MODEL, LOSS)
    found, whole = (jax.jit(g)(PARAMS, X[:4], LABELS[:4], weights=weights) for g in (accumulate(f, parts), f))
    close(found, whole)


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("weights", [None, jnp.array([1.0, 0, 2, 1])], ids=["plain", "weighted"])
@pytest.mark.repeats
def test_microbatches_count_what_the_loss_counts(parts, weights):
    loss, labels = nnjax.softmax_cross_entropy(class_weights=[0.5, 2.0, 1.0]), jnp.array([0, -100, 1, -100])
    f = nnjax.value_and_grad(MODEL, loss)
    around = (lambda f: f, lambda f: add_l2(lower_precision(f, "float32"), 0.1), jax.jit)
    for wrap in around:
        found, whole = (jax.jit(g)(PARAMS, X[:4], labels, weights=weights) for g in (accumulate(wrap(f), parts), wrap(f)))
        close(found, whole)


def test_microbatches_of_what_is_no_mean_are_refused():
    f = accumulate(nnjax.value_and_grad(MODEL, nnjax.softmax_cross_entropy(reduction="sum")), 2)
    with pytest.raises(ValueError, match="reduction is 'sum'"):
        f(PARAMS, X[:4], LABELS[:4])


def test_microbatches_of_nothing_and_with_keys():
    f = accumulate(nnjax.value_and_grad(MODEL, LOSS), 2)
    for x, labels, weights in ((X[:0], LABELS[:0], None), (X[:4], LABELS[:4], jnp.zeros(4))):
        value, grads = f(PARAMS, x, labels, weights=weights)
        assert jnp.isnan(value)
        assert not any(g.any() for g in jax.tree.leaves(grads))
    model = nnjax.serial(nnjax.dense(4, 8), nnjax.dropout(0.5), nnjax.dense(8, 3))
    params, key = model.init(jax.random.key(0)), jax.random.key(2)
    hand, reference = (g(model, LOSS) for g in (nnjax.value_and_grad, nnjax.reference_value_and_grad))
    close(*(accumulate(g, 2)(params, X[:4], LABELS[:4], key=key) for g in (hand, reference)))


def test_microbatches_that_do_not_divide_the_batch_are_refused():
    f = nnjax.value_and_grad(MODEL, LOSS)
    with pytest.raises(ValueError, match=r"accumulate: a batch .* 2 equal parts, got float32 \(5, 4\)"):
        accumulate(f, 2)(PARAMS, X, LABELS)
    with pytest.raises(ValueError, match=r"accumulate: microbatches must be a positive int, got 0"):
        accumulate(f, 0)
    with pytest.raises(TypeError, match=r"accumulate: f must return \(value, grads\).*leave out has_aux"):
        accumulate(nnjax.value_and_grad(MODEL, LOSS, has_aux=True), 1)(PARAMS, X, LABELS)


def test_eight_batches_of_16_are_one_of_128_within_the_error_budget_ragged_too():
    model = nnjax.serial(nnjax.embedding(7, 5), nnjax.tanh(), nnjax.dense(5, 7))
    ids = jax.random.randint(jax.random.key(0), (128, 6), 0, 7, jnp.int32)
    lengths = jax.random.randint(jax.random.key(1), (128, 1), 0, 7, jnp.int32)  # tokens that count in each text
    ragged = (jnp.broadcast_to(jnp.arange(6, dtype=jnp.int32)[None], (128, 6)) < lengths).astype(jnp.float32)
    params, labels = model.init(jax.random.key(2)), jnp.roll(ids, 1, 1)

    def weighted(f):  # the truth is computed in float64, and weights must have the dtype of the values
        return lambda p, x, y: f(p, x, y, weights=ragged.astype(p[0].table.dtype))

    hand, reference = nnjax.value_and_grad(model, LOSS), nnjax.reference_value_and_grad(model, LOSS)
    for wrap in (lambda f: f, weighted):
        assert all(d.ok for d in compare_gradients(wrap(accumulate(hand, 8)), wrap(reference), params, ids, labels))

    def mean_of_means(params, x, labels):
        batches = zip(*(jnp.split(a, 8) for a in (x, labels, ragged.astype(params[0].table.dtype))))
        return jax.tree.map(lambda *g: sum(g) / 8, *(hand(params, x, y, weights=w) for x, y, w in batches))

    assert not all(d.ok for d in compare_gradients(mean_of_means, weighted(reference), params, ids, labels))


def test_l1_is_the_gradient_of_its_penalty_and_leaves_zeros_and_biases_alone():
    params = (PARAMS[0]._replace(w=PARAMS[0].w.at[0, 0].set(0.0)), *PARAMS[1:])
    hand = add_l1(nnjax.value_and_grad(MODEL, LOSS, has_aux=True), 0.3)
    (value, _), grads = hand(params, X, LABELS)
    plain, plain_grads = nnjax.value_and_grad(MODEL, LOSS)(params, X, LABELS)
    sizes = sum(float(jnp.abs(w).sum()) for w in jax.tree.leaves(params) if w.ndim == 2)
    assert float(value) == pytest.approx(float(plain) + 0.3 * sizes, rel=1e-5)
    close(grads[0].w, plain_grads[0].w + 0.3 * jnp.sign(params[0].w))
    assert grads[0].w[0, 0] == plain_grads[0].w[0, 0]
    close(grads[0].b, plain_grads[0].b)
    with pytest.raises(ValueError, match="coefficient must be at least 0, got -1"):
        add_l1(hand, -1)


@pytest.mark.parametrize(("low", "wrong"), [("bfloat16", 1.25), ("float16", 1.05)])
@pytest.mark.slow
@pytest.mark.in_turn
def test_lower_precision_passes_the_check_at_its_dtype_and_a_wrong_one_does_not(low, wrong):
    model = nnjax.mlp([16, 32, 5], nnjax.gelu())
    params, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (64, 16))
    labels = jax.random.randint(jax.random.key(2), (64,), 0, 5, jnp.int32)
    lowered = lower_precision(nnjax.value_and_grad(model, LOSS), low)
    assert {g.dtype for g in jax.tree.leaves(lowered(params, x, labels))} == {jnp.dtype("float32")}

    def report(factor):
        return nnjax.check_pair(
            lambda p: lowered(p, x.astype(p[0].w.dtype), labels),
            lambda grads, ct: (jax.tree.map(lambda g: factor * ct * g, grads),),
            params, reference=lambda p: LOSS.apply((), (model.apply(p, x.astype(p[0].w.dtype)), labels)), compute_dtype=low,
            dtypes=["float32"], transforms=["jit"], witnesses=(),
        )  # fmt: skip

    report(1.0).raise_if_failed()
    assert not report(wrong).ok
    with pytest.raises(ValueError, match="dtype must be floating, got int8"):
        lower_precision(lowered, "int8")
    with pytest.raises(ValueError, match=r"unknown compute dtype 'bflot16'.*did you mean 'bfloat16'"):
        lower_precision(lowered, "bflot16")


def test_a_model_or_loss_that_is_not_a_layer_is_named():
    with pytest.raises(TypeError, match=r"value_and_grad: loss: expected a Layer, got softmax_cross_entropy; call the factory"):
        nnjax.value_and_grad(MODEL, nnjax.softmax_cross_entropy)
    with pytest.raises(TypeError, match=r"reference_value_and_grad: model: expected a Layer, got str"):
        nnjax.reference_value_and_grad("mlp", LOSS)


LOW = ["bfloat16", "float16"]


def low_dense(dtype, w=0.0):
    """dense(1, 1) with this weight, in this dtype."""
    layer = nnjax.dense(1, 1)
    return layer, jax.tree.map(lambda a: jnp.full_like(a, w, dtype=dtype), layer.init(jax.random.key(0)))


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("weighted", [False, True])
def test_many_microbatches_in_low_precision_add_up(dtype, weighted):
    model, params = low_dense(dtype)
    y = jnp.where(jnp.arange(1024)[:, None] < 256, -0.5, -1.5).astype(dtype)
    x, weights = jnp.ones((1024, 1), dtype), jnp.full(1024, 3, dtype) if weighted else None
    f = jax.jit(accumulate(nnjax.value_and_grad(model, nnjax.mean_squared_error()), 1024))
    value, grads = f(params, x, y, weights=weights)
    assert value.dtype == grads.w.dtype == dtype
    assert float(value) == (256 * 0.25 + 768 * 2.25) / 1024
    assert float(grads.w[0, 0]) == float(grads.b[0]) == 2 * (256 * 0.5 + 768 * 1.5) / 1024


@pytest.mark.parametrize("dtype", LOW)
def test_microbatches_whose_weights_float16_cannot_hold_add_up(dtype):
    model, params = low_dense(dtype)
    weights = jnp.array([40000.0, 40000, 0, 40000], dtype)
    y = jnp.array([[1.0], [2.0], [jnp.nan], [3.0]], dtype)
    for parts in (1, 2, 4):
        f = accumulate(nnjax.value_and_grad(model, nnjax.mean_squared_error()), parts)
        value, grads = f(params, jnp.ones((4, 1), dtype), y, weights=weights)
        assert float(value) == pytest.approx(14 / 3, rel=0.01)
        assert float(grads.b[0]) == pytest.approx(-4, rel=0.01)


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize(("add", "penalty"), [(add_l2, 0.5 * 0.25), (add_l1, 0.5)])
def test_penalties_in_low_precision_are_those_of_float32(dtype, add, penalty):
    model = nnjax.dense(400, 300)
    params = model.init(jax.random.key(0))._replace(w=jnp.full((400, 300), 0.5))
    low = jax.tree.map(lambda a: a.astype(dtype), params)
    x, labels = jnp.zeros((2, 400), dtype), jnp.array([0, 1])
    value, grads = add(nnjax.value_and_grad(model, LOSS), 1e-3)(low, x, labels)
    assert value.dtype == grads.w.dtype == dtype
    assert float(value) == pytest.approx(
        np.log(300) + 1e-3 * penalty * 120_000, rel=0.01
    )  # 60,000 |w| and 120,000 w^2 overflow


def test_penalties_over_parameters_of_several_dtypes_and_over_none():
    f = nnjax.value_and_grad(MODEL, LOSS)
    mixed = (PARAMS[0]._replace(w=PARAMS[0].w.astype(jnp.bfloat16)), *PARAMS[1:])

    def f_mixed(params, *batch, **options):
        value, grads = f(jax.tree.map(lambda p: p.astype(jnp.float32), params), *batch, **options)
        return value, jax.tree.map(lambda g, p: g.astype(p.dtype), grads, params)

    for add in (add_l2, add_l1):
        value, _ = add(f_mixed, 0.3)(mixed, X, LABELS)
        assert float(value) == pytest.approx(float(add(f, 0.3)(PARAMS, X, LABELS)[0]), rel=1e-2)
        close(add(lambda p, x, y, **_: (jnp.ones(()), p), 0.3)((jnp.ones(2),), X, LABELS), (jnp.ones(()), (jnp.ones(2),)))


@pytest.mark.parametrize("penalty", [add_l2, add_l1])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.repeats
def test_only_weights_have_penalties_however_often_they_are_stacked(penalty, times, x64):
    model = nnjax.serial(nnjax.layer_norm(3), nnjax.dense(3, 3), nnjax.tanh())
    for _ in range(times):
        model = nnjax.scan_layers(model, 2)
    params = jax.tree.map(lambda p: p.astype(jnp.float64) + 0.3, model.init(jax.random.key(0)))
    x, labels = X[:, :3].astype(jnp.float64), LABELS
    hand = penalty(nnjax.value_and_grad(model, LOSS), 0.3)

    def objective(p):
        w = p[1].w
        size = 0.3 * jnp.abs(w).sum() if penalty is add_l1 else 0.15 * (w * w).sum()
        return LOSS.apply((), (model.apply(p, x), labels)) + size

    found, right = hand(params, x, labels), jax.value_and_grad(objective)(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), found, right)
