import jax
import jax.numpy as jnp
import pytest

import nnjax
from nnjax.cases.llama import LLAMA3, YARN, llamas
from nnjax.layers.attending.rotary import rotary


def test_the_scaled_cases_turn_otherwise_than_without_scaling():
    for d, theta, scaling in ((4, 50.0, LLAMA3), (4, 30.0, YARN)):
        stretched, plain = rotary("test", d, theta, scaling), rotary("test", d, theta)
        assert all(a < b for a, b in zip(stretched.rates, plain.rates)) or stretched.gain != 1
        ratios = {round(a / b, 3) for a, b in zip(stretched.rates, plain.rates)}
        assert len(ratios) == 2


@pytest.mark.in_turn
def test_positions_turned_on_in_the_backward_instead_of_back_are_rejected():
    case = next(case for case in llamas() if case.name == "attention, rope by yarn, wide heads")
    params, x, _ = case.make(0, (2,))
    right, other = nnjax.plain(case.layer), nnjax.attention(6, 2, head_dim=4, rope=True, rope_theta=31.0, bias=False)
    wrong = right._replace(bwd=lambda residuals, ct_y: nnjax.plain(other).bwd(residuals, ct_y))
    only = {"dtypes": ["float64"], "transforms": ["jit"], "witnesses": ()}
    nnjax.check_layer(right, params, x, **only).raise_if_failed()
    assert {row.leaf for row in nnjax.check_layer(wrong, params, x, **only).failures} >= {"params.qkv.w", "x"}


@pytest.mark.in_turn
def test_the_windowed_case_has_biases_and_draws():
    case = next(case for case in llamas() if case.name == "llama, windowed, grouped, biased")
    params, x, key = case.make(0)
    ((_, mix, _), _) = params[1][1]
    assert jnp.abs(mix.qkv.b).min() > 0
    y, again = (case.layer.apply(params, x, key=k) for k in (key, jax.random.key(9)))
    assert (jnp.abs(y - again) > 0).any()
