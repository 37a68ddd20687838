import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax

THEIRS = {
    "sigmoid": (nnjax.sigmoid(), jax.nn.sigmoid),
    "tanh": (nnjax.tanh(), jnp.tanh),
    "relu": (nnjax.relu(), jax.nn.relu),
    "leaky_relu": (nnjax.leaky_relu(0.2), lambda x: jax.nn.leaky_relu(x, 0.2)),
    "elu": (nnjax.elu(), jax.nn.elu),
    "gelu": (nnjax.gelu(), lambda x: jax.nn.gelu(x, approximate=False)),
    "gelu(tanh)": (nnjax.gelu(approximate=True), lambda x: jax.nn.gelu(x, approximate=True)),
    "silu": (nnjax.silu(), jax.nn.silu),
    "softplus": (nnjax.softplus(), jax.nn.softplus),
    "softmax": (nnjax.softmax(), jax.nn.softmax),
    "log_softmax": (nnjax.log_softmax(), jax.nn.log_softmax),
}


@pytest.mark.parametrize("name", THEIRS)
def test_values_are_those_of_jax_nn(name):
    layer, theirs = THEIRS[name]
    x = jnp.linspace(-8, 8, 60, dtype=jnp.float32).reshape(6, 10)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = theirs(x)
    np.testing.assert_allclose(layer.apply((), x), expected, rtol=2e-6, atol=1e-6)
    np.testing.assert_array_equal(layer.fwd((), x)[0], layer.apply((), x))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.repeats
def test_nothing_overflows_at_ten_thousand(name, dtype):
    layer, _ = THEIRS[name]
    x = jnp.array([[-1e4, 1e4, 0, 1e4], [-1e4, -1e4, -1e4, -1e4], [1e4, 1e4, 1e4, 1e4]], dtype)
    y, residuals = layer.fwd((), x)
    _, ct_x = layer.bwd(residuals, jnp.ones_like(y))
    assert jnp.isfinite(y).all()
    assert jnp.isfinite(ct_x).all()
    assert nnjax.check_layer(layer, (), x, dtypes=[dtype], transforms=["jit"]).failures == ()


@pytest.mark.parametrize(
    ("layer", "slope"),
    [(nnjax.relu(), 0), (nnjax.leaky_relu(0.2), 0.2), (nnjax.elu(), 1), (nnjax.softplus(), 0.5), (nnjax.gelu(), 0.5)],
    ids=lambda v: getattr(v, "name", v),
)
def test_conventions_at_zero(layer, slope):
    zero = jnp.zeros(3)
    _, ct_x = layer.bwd(layer.fwd((), zero)[1], jnp.array([1.0, -2.0, 3.0]))
    np.testing.assert_allclose(ct_x, slope * np.array([1.0, -2.0, 3.0]), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: layer.apply((), x).sum())(zero), np.full(3, slope), rtol=1e-6)


@pytest.mark.in_turn
def test_the_jacobian_of_softmax_is_symmetric_and_that_of_log_softmax_is_not():
    x = jax.random.normal(jax.random.key(0), (5,))
    rows = {}
    for layer in (nnjax.softmax(), nnjax.log_softmax()):
        residuals = layer.fwd((), x)[1]
        rows[layer.name] = jax.vmap(lambda ct, layer=layer, kept=residuals: layer.bwd(kept, ct)[1])(jnp.eye(5))
        np.testing.assert_allclose(rows[layer.name], jax.jacobian(lambda x, layer=layer: layer.apply((), x))(x), atol=1e-6)
    np.testing.assert_allclose(rows["softmax"], rows["softmax"].T, atol=1e-7)
    assert not np.allclose(rows["log_softmax"], rows["log_softmax"].T, atol=1e-2)


@pytest.mark.parametrize("name", THEIRS)
def test_bad_input_is_refused_by_name(name):
    layer, _ = THEIRS[name]
    with pytest.raises(TypeError, match=r"x must be real floating point, got int32 \(3,\)"):
        layer.apply((), jnp.arange(3))
    with pytest.raises(TypeError, match=r"params must be \(\), .* got DenseParams"):
        layer.fwd(nnjax.DenseParams(jnp.ones(1), None), jnp.ones(3))


@pytest.mark.parametrize("layer", [nnjax.softmax(), nnjax.log_softmax()], ids=lambda layer: layer.name)
def test_a_scalar_has_no_axis_to_normalise(layer):
    with pytest.raises(ValueError, match=r"softmax: x must have at least one axis"):
        layer.apply((), jnp.ones(()))


ENTRYWISE = [name for name in THEIRS if "softmax" not in name]
DTYPES = ["float16", "bfloat16", "float32", "float64"]
HUGE = {"float16": 6e4, "bfloat16": 3e38, "float32": 3e38, "float64": 1e308}
# (f, f') at -inf and at inf: the limits
AT_INFINITY = {
    "sigmoid": ((0, 0), (1, 0)),
    "tanh": ((-1, 0), (1, 0)),
    "relu": ((0, 0), (jnp.inf, 1)),
    "leaky_relu": ((-jnp.inf, 0.2), (jnp.inf, 0.2 + 0.8)),
    "elu": ((-1, 0), (jnp.inf, 1)),
    "gelu": ((0, 0), (jnp.inf, 1)),
    "gelu(tanh)": ((0, 0), (jnp.inf, 1)),
    "silu": ((0, 0), (jnp.inf, 1)),
    "softplus": ((0, 0), (jnp.inf, 1)),
}


def _slopes(layer, x):
    """The slope at each entry, by the hand-written pair and by jax.grad of the definition, and the value."""
    y, residuals = layer.fwd((), x)
    by_jax = jax.grad(lambda x: layer.apply((), x).sum())(x)
    return layer.bwd(residuals, jnp.ones_like(y))[1], by_jax, y


slopes = jax.jit(_slopes, static_argnums=0)


@pytest.mark.parametrize(("dtype", "jit"), [("float32", False), *((dtype, True) for dtype in DTYPES)])
@pytest.mark.parametrize("name", ENTRYWISE)
@pytest.mark.repeats
def test_value_and_slope_at_infinity_and_at_huge_numbers_are_the_limits(x64, name, dtype, jit):
    layer, _ = THEIRS[name]
    far = [-np.inf, -HUGE[dtype], -2e4, 2e4, HUGE[dtype], np.inf]
    x = jnp.asarray(far, dtype)
    by_hand, by_jax, y = (slopes if jit else _slopes)(layer, x)
    low, high = AT_INFINITY[name]
    value = [low[0]] * 3 + [high[0]] * 3
    value = [{np.inf: v, -np.inf: 0.2 * v}.get(limit, limit) for v, limit in zip(far, value)]
    slope = [low[1]] * 3 + [high[1]] * 3
    for got, expected in ((y, value), (layer.apply((), x), value), (by_hand, slope), (by_jax, slope)):
        assert got.dtype == x.dtype
        np.testing.assert_allclose(got.astype("float64"), np.asarray(expected), rtol=2 * jnp.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.repeats
def test_nan_stays_nan_and_does_not_affect_the_others(x64, name, dtype):
    layer, _ = THEIRS[name]
    x = jnp.asarray([[jnp.nan, 1.0, -2.0], [0.5, 1.0, -2.0]], dtype)
    by_hand, by_jax, _ = map(np.asarray, slopes(layer, x))
    y, alone = (np.asarray(layer.fwd((), x)[0]) for x in (x, x[1]))  # operation by operation: two programs may round apart
    assert np.isnan(y[0, 0])
    assert jnp.isnan(jax.jit(layer.apply)((), x)[0, 0])
    np.testing.assert_array_equal(np.isnan(by_hand), np.isnan(by_jax))
    np.testing.assert_array_equal(y[1], alone)
    if name in ENTRYWISE:
        np.testing.assert_array_equal(y[0, 1:], alone[1:])
        assert np.isfinite(by_hand[0, 1:]).all()
    if "relu" not in name:
        assert np.isnan(by_hand[0, 0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRYWISE)
@pytest.mark.repeats
def test_value_and_slope_are_those_of_float64_over_the_whole_range_of_the_dtype(x64, name, dtype):
    layer, _ = THEIRS[name]
    tens = np.linspace(-3, np.log10(HUGE[dtype]), 400)
    x = jnp.asarray(np.concatenate([-(10.0**tens), [0], 10.0**tens]), dtype)
    by_hand, by_jax, y = slopes(layer, x)
    _, slope, value = slopes(layer, x.astype("float64"))
    eps = float(jnp.finfo(dtype).eps)
    tiny = float(jnp.finfo(dtype).tiny)  # what is smaller may be flushed to zero
    for got, expected in ((y, value), (by_hand, slope), (by_jax, slope)):
        got, expected = np.asarray(got, np.float64), np.asarray(expected)
        assert np.isfinite(got).all()
        # XLA's tanh(u) is off by two ulps, and 1 - tanh(u)^2 is multiplied by x u', some 40 where it is not yet zero.
        off = np.abs(got - expected) / ((128 if name == "gelu(tanh)" else 16) * eps * np.maximum(1, np.abs(expected)) + tiny)
        assert off.max() <= 1, (x[off.argmax()], got[off.argmax()], expected[off.argmax()])


@pytest.mark.parametrize("layer", [nnjax.softmax(), nnjax.log_softmax()], ids=lambda layer: layer.name)
@pytest.mark.parametrize("shape", [(5, 0, 0), (0,), (2, 0), (0, 3), (0, 0)], ids=str)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_an_empty_axis_gives_an_empty_result(layer, shape):
    x = jnp.zeros(shape)
    for f in (_slopes, slopes):
        by_hand, by_jax, y = f(layer, x)
        assert by_hand.shape == by_jax.shape == y.shape == shape
    assert jax.vmap(lambda x: layer.apply((), x))(jnp.zeros((2, *shape))).shape == (2, *shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_entries_of_minus_infinity_have_probability_zero(x64, name, dtype):
    layer, theirs = THEIRS[name]
    inf = np.inf
    x = jnp.asarray([[1.0, -inf, 2.0, -3.0], [-inf, -inf, 0.5, -inf], [-inf] * 4], dtype)
    ct = jnp.asarray([[0.5, 2.0, -1.0, 0.25]] * 3, dtype)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        expected = theirs(x.astype("float64"))
    y, residuals = layer.fwd((), x)
    np.testing.assert_allclose(y.astype("float64"), expected, rtol=2 * jnp.finfo(dtype).eps)
    np.testing.assert_array_equal(y.astype("float64"), layer.apply((), x).astype("float64"))
    assert jnp.isnan(y[2]).all()  # as in jax.nn
    by_hand = layer.bwd(residuals, ct)[1]
    by_jax = jax.vjp(lambda x: layer.apply((), x), x)[1](ct)[0]
    kept = np.asarray(x[0, :]) != -inf
    p = np.exp(np.asarray(x[0, kept], np.float64)) / np.exp(np.asarray(x[0, kept], np.float64)).sum()
    c = np.asarray(ct[0, kept], np.float64)
    truth = np.zeros(4)
    if name == "softmax":
        truth[kept] = p * (c - (p * c).sum())
    else:
        truth[~kept], truth[kept] = np.asarray(ct[0, ~kept], np.float64), c - p * np.asarray(ct[0], np.float64).sum()
    for got in (by_hand, by_jax):
        np.testing.assert_allclose(got[0].astype("float64"), truth, atol=8 * jnp.finfo(dtype).eps)
        assert jnp.isfinite(got[:2]).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_softmax_over_more_entries_than_float16_can_count(dtype):
    n = 1 << 17
    x = jnp.zeros((1, n), dtype)
    np.testing.assert_allclose(nnjax.softmax().apply((), x).astype("float32"), 1 / n, rtol=1e-2)
    np.testing.assert_allclose(nnjax.log_softmax().apply((), x).astype("float32"), -np.log(n), rtol=1e-2)
    layer, ct = nnjax.log_softmax(), jnp.ones((1, n), dtype)
    np.testing.assert_allclose(layer.bwd(layer.fwd((), x)[1], ct)[1].astype("float32"), 0, atol=0.05)  # log p, 11.8, to 8 bits


@pytest.mark.parametrize("slope", ["0.1", None, True, float("nan"), float("inf"), [0.1], jnp.ones(2)], ids=repr)
def test_a_slope_is_a_finite_number(slope):
    with pytest.raises(ValueError, match=r"leaky_relu: slope must be a finite number, got"):
        nnjax.leaky_relu(slope)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_gradient_of_softmax_does_not_lose_what_a_rounded_share_leaves_to_the_others(dtype):
    layer, x = nnjax.layers.softmax(), jnp.asarray([[9.0, 0.0], [0.0, 12.0]], dtype)
    y, residuals = layer.fwd((), x)
    assert (y.max(-1) == 1).all()
    ct_x = layer.bwd(residuals, jnp.asarray([[1.0, 0.0], [0.0, 1.0]], dtype))[1]
    p = 1 / (1 + np.exp([9.0, 12.0]))
    np.testing.assert_allclose(np.asarray(ct_x, np.float64).max(-1), p * (1 - p), rtol=0.02)
