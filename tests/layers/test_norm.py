import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import nnjax
from nnjax.cases import hard, jittered
from nnjax.check.mutation.mutants import hunt

MAKE = {
    "layer_norm": (lambda: nnjax.layer_norm(6), lambda: linen.LayerNorm(epsilon=1e-5)),
    "rms_norm": (lambda: nnjax.rms_norm(6), lambda: linen.RMSNorm(epsilon=1e-5)),
    "group_norm": (lambda: nnjax.group_norm(2, 6), lambda: linen.GroupNorm(num_groups=2, epsilon=1e-5)),
}
X = jax.random.normal(jax.random.key(0), (4, 3, 5, 6))
QUICK = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}
OTHERS = {"dtypes": ["float32"], "transforms": ["vmap", "scan", "checkpoint", "second"], "witnesses": ()}


def offset_of(params):
    return jnp.zeros_like(params.scale) if params.offset is None else params.offset


@pytest.mark.parametrize("name", MAKE)
def test_values_are_those_of_flax(name):
    layer = jittered(MAKE[name][0]())
    params = layer.init(jax.random.key(1))
    theirs = {"scale": params.scale} | ({} if params.offset is None else {"bias": params.offset})
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = MAKE[name][1]().apply({"params": theirs}, X)
    np.testing.assert_allclose(layer.apply(params, X), expected, rtol=2e-4, atol=2e-5)
    np.testing.assert_array_equal(layer.fwd(params, X)[0], layer.apply(params, X))


def test_group_norm_of_one_group_a_channel_normalises_each_channel_by_itself():
    layer = nnjax.group_norm(6, 6)
    y = layer.apply(layer.init(jax.random.key(0)), X)
    np.testing.assert_allclose(y.mean((1, 2)), np.zeros((4, 6)), atol=1e-6)
    np.testing.assert_allclose(y.std((1, 2)), np.ones((4, 6)), atol=1e-3)


def test_the_jacobian_of_layer_norm_is_symmetric_and_lets_neither_mean_nor_length_through():
    layer, x = nnjax.layer_norm(6, eps=1e-12), X[0, 0, 0]
    params = layer.init(jax.random.key(0))
    y, residuals = layer.fwd(params, x)
    rows = jax.vmap(lambda ct: layer.bwd(residuals, ct)[1])(jnp.eye(6))
    np.testing.assert_allclose(rows, rows.T, atol=1e-6)
    np.testing.assert_allclose(rows @ jnp.ones(6), np.zeros(6), atol=1e-6)
    np.testing.assert_allclose(rows @ y, np.zeros(6), atol=1e-5)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("shape", [(0, 6), (1, 6), (2, 0, 6)], ids=str)
def test_odd_shapes(name, shape):
    layer = jittered(MAKE[name][0]())
    x = hard(np.random.default_rng(0), shape)
    assert not nnjax.check_layer(layer, layer.init(jax.random.key(0)), x, **QUICK).failures


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.repeats
def test_other_transforms_pass(name):
    layer = jittered(MAKE[name][0]())
    x = hard(np.random.default_rng(1), (4, 2, 6))
    nnjax.check_layer(layer, layer.init(jax.random.key(0)), x, **OTHERS).raise_if_failed()


@pytest.mark.parametrize("name", MAKE)
def test_large_means_and_large_halves_do_not_overflow(name):
    layer, x = MAKE[name][0](), (X[:, 0] + 300).astype(jnp.float16)
    params = jax.tree.map(lambda p: p.astype(jnp.float16), layer.init(jax.random.key(0)))
    y, residuals = layer.fwd(params, x)
    assert jnp.isfinite(y).all()
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(layer.bwd(residuals, jnp.ones_like(y))))


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_every_mutant_is_killed(name):
    layer = jittered(MAKE[name][0]())
    outcomes = hunt(layer, layer.init(jax.random.key(2)), hard(np.random.default_rng(2), (5, 2, 6)))
    assert not [o.mutant for o in outcomes if o.status == "survived"]


def test_a_backward_that_forgets_the_projection_is_rejected():
    layer = jittered(nnjax.layer_norm(6))

    def bwd(residuals, ct_y):
        scale, x, mean, one_over_s = residuals
        return layer.bwd(residuals, ct_y)[0], ct_y * jnp.broadcast_to(scale, x.shape) * jnp.broadcast_to(one_over_s, x.shape)

    report = nnjax.check_layer(layer._replace(bwd=bwd), layer.init(jax.random.key(0)), X[0, 0], **QUICK)
    assert {row.leaf for row in report.failures} == {"x"}


@pytest.mark.parametrize("name", MAKE)
def test_bad_input_is_refused_by_name(name):
    layer = MAKE[name][0]()
    params = layer.init(jax.random.key(0))
    with pytest.raises(ValueError, match=rf"{name}: x must have shape \(.*\.\.\., 6\), got float32 \(2, 5\)"):
        layer.apply(params, jnp.ones((2, 5)))
    with pytest.raises(TypeError, match=rf"{name}: x must be real floating point, got int32"):
        layer.fwd(params, jnp.ones((2, 6), int))
    with pytest.raises(TypeError, match=rf"{name}: x and scale must have the same dtype"):
        layer.apply(params, jnp.ones((2, 6), jnp.bfloat16))
    with pytest.raises(TypeError, match=rf"{name}: params must be NormParams\(scale, offset\), got tuple"):
        layer.apply((), jnp.ones((2, 6)))
    with pytest.raises(ValueError, match=rf"{name}: scale must have shape \(6,\), got float32 \(5,\)"):
        layer.apply(params._replace(scale=jnp.ones(5)), jnp.ones((2, 6)))


def test_group_norm_needs_a_batch_axis_and_groups_that_divide_the_channels():
    layer = nnjax.group_norm(2, 6)
    with pytest.raises(ValueError, match=r"group_norm: x must have shape \(batch, \.\.\., 6\), got float32 \(6,\)"):
        layer.apply(layer.init(jax.random.key(0)), jnp.ones(6))
    with pytest.raises(ValueError, match=r"group_norm: groups must divide the 6 channels, got 4 groups; pass one of \[1, 2"):
        nnjax.group_norm(4, 6)


@pytest.mark.parametrize("make", [nnjax.layer_norm, nnjax.rms_norm, nnjax.batch_norm, lambda n: nnjax.group_norm(n, 4)])
def test_bad_sizes_are_refused(make):
    with pytest.raises(ValueError, match=r"_norm: (n|groups) must be a positive int, got 0"):
        make(0)
