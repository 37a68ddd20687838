import cmath
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.layers.attending.rotary import Rotary, angles, rotary, turned
from nnjax.linear import rotate, rotate_t

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


def test_each_pair_is_multiplied_by_a_complex_number(x64):
    by, x = rotary("test", 6, 100.0), np.random.default_rng(0).standard_normal((2, 5, 6))
    y = np.asarray(turned(rotate, jnp.asarray(x), jnp.arange(5, dtype=jnp.int32), by))
    for place in np.ndindex(2, 5):
        for i in range(3):
            z = complex(x[(*place, i)], x[(*place, i + 3)]) * cmath.exp(1j * place[1] * 100.0 ** (-2 * i / 6))
            np.testing.assert_allclose(y[(*place, i)] + 1j * y[(*place, i + 3)], z, rtol=1e-12)


def test_the_rates_of_llama_3_are_those_of_its_three_bands():
    rates, plain = rotary("test", 128, 500000.0, LLAMA3).rates, rotary("test", 128, 500000.0).rates
    bands = set()
    for new, old in zip(rates, plain):
        length = 2 * math.pi / old  # of one turn, in positions
        if length < 8192 / 4:
            wanted, band = old, "stays"
        elif length > 8192 / 1:
            wanted, band = old / 8, "divided"
        else:
            share = (8192 / length - 1) / (4 - 1)
            wanted, band = (1 - share) * old / 8 + share * old, "between"
        assert new == pytest.approx(wanted, rel=1e-12)
        bands.add(band)
    assert bands == {"stays", "divided", "between"}


def test_linear_divides_all_and_none_and_default_nothing():
    plain = rotary("test", 8, 1000.0)
    assert (
        plain == rotary("test", 8, 1000.0, {"rope_type": "default"}) == rotary("test", 8, np.float32(1000), {"type": "default"})
    )
    assert rotary("test", 8, 1000.0, {"type": "linear", "factor": 2}).rates == tuple(r / 2 for r in plain.rates)


def test_yarn_keeps_fast_pairs_divides_slow_ones_and_lengthens():
    by, plain = rotary("test", 32, 10000.0, YARN | {"beta_fast": 2, "beta_slow": 0.1}), rotary("test", 32)
    assert by.gain == pytest.approx(0.1 * math.log(4) + 1)
    assert by.rates[0] == plain.rates[0]
    assert by.rates[-1] == pytest.approx(plain.rates[-1] / 4)
    ratios = [a / b for a, b in zip(by.rates, plain.rates)]
    assert ratios == sorted(ratios, reverse=True)
    assert len(set(ratios)) > 3
    assert rotary("test", 32, scaling=YARN | {"attention_factor": 0.5}).gain == 0.5
    both = rotary("test", 32, scaling=YARN | {"mscale": 2.0, "mscale_all_dim": 1.0}).gain
    assert both == pytest.approx((0.2 * math.log(4) + 1) / (0.1 * math.log(4) + 1))
    cut, exact = (rotary("test", 32, scaling=YARN | {"beta_fast": 2.0, "truncate": t}).rates for t in (True, False))
    assert cut != exact


def test_the_transpose_turns_back_also_with_a_gain(x64):
    by = Rotary((1.0, 0.1), 1.7)
    x, ct = (jnp.asarray(np.random.default_rng(i).standard_normal((3, 5, 4))) for i in (0, 1))
    at = jnp.array([0, 3, 1, 7, 2], jnp.int32)
    forward, back = (turned(turn, a, at, by) for turn, a in ((rotate, x), (rotate_t, ct)))
    np.testing.assert_allclose((ct * forward).sum(), (back * x).sum(), rtol=1e-12)


def test_a_far_position_is_exact_in_bfloat16():
    x = jnp.ones((1, 2), jnp.bfloat16)
    y = turned(rotate, x, jnp.array([1001], jnp.int32), Rotary((0.01,)))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y[0].astype(jnp.float32), [math.cos(10.01) - math.sin(10.01), math.cos(10.01) + math.sin(10.01)],
                               rtol=0.01)  # fmt: skip
    cos, _ = jax.eval_shape(lambda: angles(jnp.arange(3, dtype=jnp.int32), Rotary((1.0, 0.5)), jnp.float32))
    assert cos.shape == (3, 2)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((5,), r"even number, got 5"),
        ((4, 1.0), r"rope_theta must be a finite number above 1, got 1\.0"),
        ((4, "large"), r"rope_theta must be"),
        ((4, 10.0, "llama3"), r"must be a dict"),
        ((4, 10.0, {"factor": 2.0}), r"one rope_type"),
        ((4, 10.0, {"rope_type": "linear", "type": "yarn", "factor": 2.0}), r"one rope_type"),
        ((4, 10.0, {"rope_type": "lama3"}), r"unknown rope_type of test 'lama3': .*did you mean 'llama3'"),
        ((4, 10.0, {"rope_type": "linear"}), r"linear needs factor"),
        ((4, 10.0, {"rope_type": "linear", "factor": None}), r"linear needs factor"),
        ((4, 10.0, {"rope_type": "linear", "factor": 0.5}), r"factor must be a finite number of at least 1"),
        ((4, 10.0, {"rope_type": "linear", "factor": True}), r"factor must be a finite number of at least 1"),
        ((4, 10.0, {"rope_type": "linear", "factor": 2.0, "beta_fast": 3.0}), r"linear has no beta_fast"),
        ((4, 10.0, LLAMA3 | {"high_freq_factor": 1.0}), r"low_freq_factor must be less than high_freq_factor"),
        ((4, 10.0, LLAMA3 | {"original_max_position_embeddings": 0}), r"original_max_position_embeddings must be .* above 0"),
        ((4, 10.0, YARN | {"beta_slow": 40.0}), r"beta_slow must be less than beta_fast"),
        ((4, 10.0, YARN | {"truncate": "no"}), r"truncate must be True or False"),
    ],
)
def test_what_makes_no_sense_is_refused(args, message):
    with pytest.raises((ValueError, TypeError), match=message):
        rotary("test", *args)
