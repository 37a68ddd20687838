import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.layers.gating.gate import gate

QUICK = {"dtypes": ["float64", "float32"], "transforms": ["jit"]}


def halves(*shape):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.standard_normal(shape).astype(np.float32)) for _ in range(2))


@pytest.mark.parametrize("act", [nnjax.silu(), nnjax.gelu(), nnjax.sigmoid()], ids=lambda act: act.name)
def test_it_passes_the_check_and_one_without_the_other_half_does_not(act):
    layer, x = gate(act), halves(3, 4)
    nnjax.check_layer(layer, (), x, **QUICK).raise_if_failed()

    def wrong(residuals, ct_y):  # the halves are not exchanged
        gate_half, up = residuals
        return (), (act.bwd(act.fwd((), gate_half)[1], ct_y * gate_half)[1], ct_y * act.apply((), up))

    assert nnjax.check_layer(layer._replace(bwd=wrong), (), x, **QUICK).failures


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (2, 3, 1)])
def test_any_shape_passes(shape):
    nnjax.check_layer(gate(nnjax.silu()), (), halves(*shape), **QUICK, witnesses=()).raise_if_failed()


def test_what_is_kept_is_the_two_halves():
    x = halves(2, 3)
    _, residuals = gate(nnjax.silu()).fwd((), x)
    assert all(a is b for a, b in zip(jax.tree.leaves(residuals), x, strict=True))


@pytest.mark.parametrize("x", [(jnp.inf, 0.0), (-jnp.inf, 2.0), (2000.0, -1.0), (-2000.0, 3.0)])
def test_far_out_the_gate_is_open_or_shut(x):
    layer = gate(nnjax.silu())
    g, u = (jnp.full((1,), v, jnp.float32) for v in x)
    y, residuals = layer.fwd((), (g, u))
    _, (ct_gate, ct_up) = layer.bwd(residuals, jnp.ones(1))
    opened = x[0] > 0
    assert float(ct_gate[0]) == (x[1] if opened else 0.0)
    np.testing.assert_array_equal(ct_up, jnp.maximum(g, 0))
    if np.isfinite(x[0]):
        assert float(y[0]) == (x[0] * x[1] if opened else 0.0)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (jnp.ones(3), TypeError, r"tuple \(gate, up\), got float32"),
        ((jnp.ones(3),), TypeError, r"tuple \(gate, up\)"),
        ((jnp.ones(3), jnp.ones(4)), ValueError, r"up must have shape \(3,\)"),
        ((jnp.ones(3), jnp.ones(3, jnp.bfloat16)), TypeError, r"same dtype"),
        ((jnp.arange(3), jnp.arange(3)), TypeError, r"gate must be real floating point"),
    ],
)
def test_other_inputs_are_refused(x, error, message):
    with pytest.raises(error, match=message):
        gate(nnjax.silu()).apply((), x)
