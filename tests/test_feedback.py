import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import feedback, nielsen

KEY = jax.random.key(0)
V = jnp.array([3.0, 2, 1, 1, 1])  # squared length 16, so this reflection is orthogonal without rounding
REFLECTION = jnp.eye(5) - jnp.outer(V, V) / 8
W = jnp.asarray(np.random.default_rng(0).standard_normal((4, 4)), jnp.float32)
THIN = W[:3]


def test_transpose_is_the_adjoint():
    rng = np.random.default_rng(0)
    w, a, delta = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((3, 5), (5,), (3,)))
    back = feedback.transpose(w)
    assert back.shape == (5, 3)
    np.testing.assert_allclose(jnp.vdot(delta, w @ a), jnp.vdot(back @ delta, a), rtol=1e-5)


@pytest.mark.in_turn
def test_inverse_undoes_and_is_the_transpose_of_orthogonal_weights_only():
    np.testing.assert_allclose(feedback.inverse(W) @ W, jnp.eye(4), atol=1e-5)
    np.testing.assert_allclose(feedback.inverse(REFLECTION), REFLECTION.T, atol=1e-6)
    assert float(feedback.angle(feedback.inverse(W), W.T)) > 10


def test_inverse_of_a_matrix_without_one_is_refused():
    with pytest.raises(ValueError, match=r"w must be square to have an inverse, got float32 \(3, 4\); use transpose"):
        feedback.inverse(THIN)
    singular = W.at[3].set(2 * W[0] - W[1])  # no exact zero among its pivots
    with pytest.raises(ValueError, match=r"w is singular, so it has no inverse: .*; use transpose"):
        feedback.inverse(singular)
    with pytest.raises(ValueError, match="w is singular"):
        feedback.inverse(jnp.zeros((2, 2)))
    assert not jnp.isfinite(jax.jit(feedback.inverse)(jnp.zeros((2, 2)))).any()


def test_pseudo_inverse_meets_the_four_conditions_of_penrose():
    for w in (THIN, THIN.T, jnp.zeros((3, 2)), jnp.outer(W[0], W[1])):
        b = feedback.pseudo_inverse(w)
        assert b.shape == w.shape[::-1]
        np.testing.assert_allclose(w @ b @ w, w, atol=1e-5)
        np.testing.assert_allclose(b @ w @ b, b, atol=1e-5)
        np.testing.assert_allclose(w @ b, (w @ b).T, atol=1e-5)
        np.testing.assert_allclose(b @ w, (b @ w).T, atol=1e-5)


def test_random_is_drawn_once_whatever_w_is_and_by_its_key():
    w = jnp.ones((300, 500))
    b = feedback.random(KEY)(w)
    np.testing.assert_array_equal(b, jax.jit(feedback.random(KEY))(2 * w))
    assert b.shape == (500, 300)
    np.testing.assert_allclose(b.var(), 2 / 800, rtol=0.02)
    assert not jnp.array_equal(b, feedback.random(jax.random.key(1))(w))
    assert feedback.random(KEY)(w.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_random_is_a_constant_of_the_compiled_program():
    text = str(jax.make_jaxpr(feedback.random(KEY))(W))
    assert "random_bits" not in text
    assert "threefry" not in text


@pytest.mark.parametrize("magnitudes", feedback.MAGNITUDES)
@pytest.mark.repeats
def test_sign_symmetric_has_the_signs_of_the_transpose_and_magnitudes_of_its_own(magnitudes):
    operator = feedback.sign_symmetric(magnitudes, KEY)
    b, later = operator(THIN), operator(1.5 * THIN)
    np.testing.assert_array_equal(jnp.sign(b), jnp.sign(THIN.T))
    assert not jnp.array_equal(jnp.abs(b), jnp.abs(THIN.T))
    assert jnp.array_equal(b, later) == (magnitudes != feedback.REDRAWN)
    assert (len(jnp.unique(jnp.abs(b))) == 1) == (magnitudes == feedback.EQUAL)


def test_operators_by_name_have_random_numbers_of_their_own():
    first, second = feedback.named("random", KEY, 2)
    assert not jnp.array_equal(first(W), second(W))
    assert feedback.named("transpose", KEY, 3) == (feedback.transpose,) * 3
    assert feedback.named("mirror", KEY) == (feedback.mirror,)


def test_angle_is_accurate_at_its_ends():
    assert float(feedback.angle(W, W)) == 0
    assert float(feedback.angle(W, -W)) == 180
    np.testing.assert_allclose(feedback.angle(jnp.array([1.0, 0]), jnp.array([1.0, 1e-6])), np.rad2deg(1e-6), rtol=1e-3)
    np.testing.assert_allclose(feedback.angle((jnp.ones(1), jnp.zeros(1)), (jnp.zeros(1), 3 * jnp.ones(1))), 90, rtol=1e-6)
    assert jnp.isnan(feedback.angle(W, 0 * W))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: feedback.random(0), TypeError, r"feedback\.random: key must be a key of jax\.random, got int; pass"),
        (lambda: feedback.sign_symmetric("some"), ValueError, r"unknown magnitudes .* 'some': known are equal, fixed, redrawn"),
        (lambda: feedback.sign_symmetric("fixed"), TypeError, r"sign_symmetric\('fixed'\): key must be .* got NoneType"),
        (lambda: feedback.mirror(W), TypeError, r"B is a parameter of its own, not a function of w; pass feedback=mirror"),
        (lambda: feedback.named("transposed", KEY), ValueError, r"unknown feedback 'transposed'.*did you mean 'transpose'"),
        (lambda: nnjax.mlp([4, 4, 4, 2], feedback=[feedback.transpose]), ValueError,
         r"mlp: feedback must be one operator or one for each of its 2 layers with weights, got 1; pass"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


OPERATORS = {name: feedback.named(name, KEY)[0] for name in feedback.LOCAL}


def report_of(operator, w, **options):
    layer = nnjax.dense(w.shape[0], w.shape[1], feedback=operator)
    params = layer.init(KEY)
    forward = nnjax.DenseParams(w, jnp.arange(w.shape[1], dtype=jnp.float32))
    params = params._replace(forward=forward) if operator is feedback.mirror else forward
    x = jax.random.normal(jax.random.key(1), (5, w.shape[0]))
    return nnjax.check_layer(layer, params, x, **options)


@pytest.mark.parametrize("w", [W, THIN], ids=["square", "thin"])
@pytest.mark.in_turn
def test_the_check_accepts_the_transpose(w):
    report_of(feedback.transpose, w).raise_if_failed()


@pytest.mark.parametrize("name", [name for name in OPERATORS if name != "transpose"])
@pytest.mark.repeats
def test_the_check_rejects_every_other_operator(name):
    report = report_of(OPERATORS[name], W, dtypes=("float64", "float32"), transforms=("eager", "jit"))
    assert not report.ok
    assert {"x"} <= {row.leaf for row in report.failures} <= {"x", "params.back"}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_on_orthogonal_weights_inverse_and_pseudo_inverse_coincide_with_the_transpose(name):
    # Only at these weights: vmap, scan, the Hessian and the Taylor remainder also use points near them.
    only = {"dtypes": ("float64", "float32"), "transforms": ("jit", "checkpoint"), "witnesses": ("adjoint",)}
    report = report_of(OPERATORS[name], REFLECTION, **only)
    assert report.ok == (name in ("transpose", "inverse", "pseudo_inverse"))
    beside = report_of(OPERATORS[name], REFLECTION, dtypes=("float32",), transforms=("vmap",), witnesses=())
    assert beside.ok == (name == "transpose")


@pytest.mark.in_turn
def test_conv_sends_the_error_back_by_the_operator_of_its_matrix():
    x = jax.random.normal(KEY, (2, 5, 5, 2))
    plain, same = nnjax.conv(2, 3, (3, 3)), nnjax.conv(2, 3, (3, 3), feedback=lambda w: w.T)
    params = plain.init(KEY)
    ct_y = jax.random.normal(jax.random.key(1), (2, 5, 5, 3))
    right = plain.bwd(plain.fwd(params, x)[1], ct_y)
    jax.tree.map(np.testing.assert_array_equal, right, same.bwd(same.fwd(params, x)[1], ct_y))
    other = nnjax.conv(2, 3, (3, 3), feedback=feedback.random(KEY))
    ct_params, ct_x = other.bwd(other.fwd(params, x)[1], ct_y)
    jax.tree.map(np.testing.assert_array_equal, right[0], ct_params)
    kernel = feedback.random(KEY)(params.w.reshape(18, 3)).T.reshape(params.w.shape)
    np.testing.assert_array_equal(ct_x, plain.bwd(plain.fwd(params._replace(w=kernel), x)[1], ct_y)[1])
    assert not nnjax.check_layer(other, params, x, dtypes=("float32",), transforms=("jit",), witnesses=()).ok


@pytest.mark.slow
@pytest.mark.in_turn
def test_whole_models_take_operators_one_for_each_layer_after_the_first():
    x, labels = jax.random.normal(KEY, (5, 10, 10, 1)), jnp.array([0, 1, 2, 0, 1])
    loss = nnjax.softmax_cross_entropy()

    def make(operators):
        return nnjax.lenet(3, channels=(2,), hidden=(4, 4), image=(10, 10, 1), feedback=operators)

    params = make(feedback.transpose).init(KEY)
    _, right = nnjax.value_and_grad(make(feedback.transpose), loss)(params, x, labels)
    operators = (feedback.transpose, feedback.transpose, feedback.random(KEY))
    _, found = nnjax.value_and_grad(make(operators), loss)(params, x, labels)
    same = [bool(jnp.array_equal(a.w, b.w)) for a, b in zip(_with_weights(right), _with_weights(found))]
    assert same == [False, False, False, True]  # only the layers below the one with the random matrix differ


def _with_weights(grads):
    kind = (nnjax.ConvParams, nnjax.DenseParams)
    return [g for g in jax.tree.leaves(grads, is_leaf=lambda g: isinstance(g, kind)) if isinstance(g, kind)]


@pytest.mark.in_turn
def test_the_book_takes_an_operator_or_one_for_each_layer_or_a_matrix():
    params = nielsen.init(KEY, [3, 4, 4, 2])
    x, y = jnp.arange(3.0), jnp.array([0.0, 1.0])
    right = nielsen.backprop(params, x, y)
    matrices = [w.T for w in params.w[1:]]
    for same in (feedback.transpose, [feedback.transpose] * 2, matrices, [feedback.transpose, matrices[1]]):
        jax.tree.map(np.testing.assert_array_equal, right, nielsen.backprop(params, x, y, send_back=same))
    other = nielsen.backprop(params, x, y, send_back=feedback.named("random", KEY, 2))
    np.testing.assert_array_equal(other.w[2], right.w[2])
    assert not np.allclose(other.w[1], right.w[1])
    with pytest.raises(ValueError, match=r"one entry for each of the 2 w after the first, got 1; the first w has nothing"):
        nielsen.backprop(params, x, y, send_back=matrices[:1])
