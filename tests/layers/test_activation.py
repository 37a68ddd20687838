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
    with pytest.raises(TypeError, match=r"has no parameters and expects \(\), got DenseParams"):
        layer.fwd(nnjax.DenseParams(jnp.ones(1), None), jnp.ones(3))


@pytest.mark.parametrize("layer", [nnjax.softmax(), nnjax.log_softmax()], ids=lambda layer: layer.name)
def test_a_scalar_has_no_axis_to_normalise(layer):
    with pytest.raises(ValueError, match=r"softmax: x must have at least one axis"):
        layer.apply((), jnp.ones(()))
