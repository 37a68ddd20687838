import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.layers.gating.gated import silu_by_division

QUICK = {"dtypes": ["float64", "float32"], "transforms": ["jit"]}
LAYERS = {"swiglu": nnjax.swiglu, "geglu": nnjax.geglu, "geglu by tanh": lambda *n: nnjax.geglu(*n, approximate=True)}


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def sigmoid(g):
    return 1 / (1 + math.exp(-g))


def share(g):
    return (1 + math.erf(g / math.sqrt(2))) / 2


ACTIVATIONS = {  # (value, derivative) at a number
    "swiglu": lambda g: (g * sigmoid(g), sigmoid(g) + g * sigmoid(g) * (1 - sigmoid(g))),
    "geglu": lambda g: (g * share(g), share(g) + g * math.exp(-g * g / 2) / math.sqrt(2 * math.pi)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_cotangents_are_those_of_a_loop_over_numbers(name, x64):
    n, hidden, rows = 3, 5, 4
    layer = LAYERS[name](n, hidden)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), layer.init(jax.random.key(0)))
    x, ct_y = (np.random.default_rng(i).standard_normal((rows, n)) for i in (1, 2))
    w_gate, w_up, w_down = (np.asarray(p.w) for p in params)
    y, ct_x = np.zeros((rows, n)), np.zeros((rows, n))
    ct_gate, ct_up, ct_down = (np.zeros_like(w) for w in (w_gate, w_up, w_down))
    for r in range(rows):
        for h in range(hidden):
            g, u = (sum(x[r, i] * w[i, h] for i in range(n)) for w in (w_gate, w_up))
            a, slope = ACTIVATIONS[name](g)
            ct = sum(ct_y[r, j] * w_down[h, j] for j in range(n))
            for i in range(n):
                y[r, i] += a * u * w_down[h, i]
                ct_down[h, i] += a * u * ct_y[r, i]
                ct_gate[i, h] += x[r, i] * ct * u * slope
                ct_up[i, h] += x[r, i] * ct * a
                ct_x[r, i] += ct * u * slope * w_gate[i, h] + ct * a * w_up[i, h]
    found, residuals = layer.fwd(params, jnp.asarray(x))
    np.testing.assert_allclose(found, y, rtol=1e-11)
    np.testing.assert_allclose(layer.apply(params, jnp.asarray(x)), y, rtol=1e-11)
    by_hand, by_hand_x = layer.bwd(residuals, jnp.asarray(ct_y))
    for ours, theirs in zip((*(p.w for p in by_hand), by_hand_x), (ct_gate, ct_up, ct_down, ct_x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (1, 3), (2, 3, 3)])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.repeats
def test_any_leading_axes_pass_the_check(name, shape):
    layer = LAYERS[name](3, 7)
    nnjax.check_layer(layer, layer.init(jax.random.key(0)), normal(*shape), **QUICK, witnesses=()).raise_if_failed()


def test_one_of_the_two_ways_of_x_forgotten_is_rejected():
    layer = nnjax.swiglu(4, 6)
    params, x = layer.init(jax.random.key(0)), normal(5, 4)

    def wrong(residuals, ct_y):  # as if the gate were a constant
        (kept, *rest), none = residuals, jnp.zeros_like(residuals[0].gate.w)
        ct_params, _ = layer.bwd(residuals, ct_y)
        _, ct_x = layer.bwd((kept._replace(gate=kept.gate._replace(w=none)), *rest), ct_y)
        return ct_params, ct_x

    report = nnjax.check_layer(layer._replace(bwd=wrong), params, x, **QUICK)
    assert {row.leaf for row in report.failures} == {"x"}


SHAPES = {(64, 172), (172, 64)}  # of the parameters, which a scan does not keep again


def size(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree) if leaf.shape not in SHAPES)


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_kept_is_less_than_seven_tenths_of_what_autodiff_keeps(name):
    layer = LAYERS[name](64, 172)
    params, x = layer.init(jax.random.key(0)), normal(32, 64)
    _, residuals = layer.fwd(params, x)
    assert size(residuals) == 4 * 32 * (64 + 2 * 172)
    assert size(residuals) < 0.7 * size(jax.vjp(layer.apply, params, x)[1])


@pytest.mark.slow
@pytest.mark.in_turn
def test_blocks_in_a_scan_need_less_than_seven_tenths_of_the_memory():
    model = nnjax.scan_layers(nnjax.residual(nnjax.swiglu(64, 172)), 6)
    params, x = model.init(jax.random.key(0)), normal(512, 64)

    def hand(params, x):
        y, residuals = model.fwd(params, x)
        return model.bwd(residuals, y)

    def by_jax(params, x):
        y, pull = jax.vjp(model.apply, params, x)
        return pull(y)

    ours, theirs = (jax.jit(f).lower(params, x).compile().memory_analysis().temp_size_in_bytes for f in (hand, by_jax))
    assert ours < 0.7 * theirs


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nnjax.swiglu(0, 3), ValueError, r"swiglu: n must be a positive int"),
        (lambda: nnjax.geglu(3, 2.5), ValueError, r"geglu: hidden must be a positive int"),
        (lambda: nnjax.geglu(3, 2, approximate="tanh"), TypeError, r"approximate"),
        (lambda: nnjax.swiglu(3, 2, init=3), TypeError, r"init must be a function"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_other_parameters_or_inputs_are_refused():
    layer = nnjax.swiglu(4, 6)
    params, x = layer.init(jax.random.key(0)), normal(5, 4)
    with pytest.raises(TypeError, match=r"swiglu: params must be GatedParams"):
        layer.apply((), x)
    with pytest.raises(ValueError, match=r"swiglu: up\.w must have shape \(4, 6\)"):
        layer.apply(params._replace(up=params.down), x)
    with pytest.raises(TypeError, match=r"swiglu: gate.*DenseParams"):
        layer.apply(params._replace(gate=params.gate.w), x)
    with pytest.raises(ValueError, match=r"x must have 4 features"):
        layer.apply(params, x[:, :3])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_silu_by_division_is_silu_up_to_the_ends_of_the_range(dtype):
    x = jnp.asarray([0.0, -0.5, 3.0, -9.5, -15.0, -80.0, -100.0, 100.0, 3e4, -3e4, jnp.inf, -jnp.inf, jnp.nan], dtype)
    exact = np.asarray(nnjax.silu().apply((), x.astype(jnp.float32)))
    near = {"rtol": 4 * float(jnp.finfo(dtype).eps), "atol": max(1e-36, float(jnp.finfo(dtype).smallest_subnormal))}
    np.testing.assert_allclose(np.asarray(silu_by_division(x), np.float32), exact, **near)
    assert silu_by_division(x).dtype == x.dtype


@pytest.mark.in_turn
def test_the_backward_of_swiglu_needs_four_arrays_of_hidden_features_and_jax_grad_seven(optimised):
    layer, rows, hidden = nnjax.swiglu(16, 2048), 512, 2048
    params, x = layer.init(jax.random.key(0)), jnp.ones((rows, 16))

    def by_hand(params, x, ct):
        return layer.bwd(layer.fwd(params, x)[1], ct)

    def by_jax(params, x, ct):
        return jax.vjp(layer.apply, params, x)[1](ct)

    ours, theirs = (jax.jit(f).lower(params, x, x).compile().memory_analysis().temp_size_in_bytes for f in (by_hand, by_jax))
    assert ours < 4.5 * 4 * rows * hidden < 0.7 * theirs
