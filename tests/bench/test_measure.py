import jax
import jax.numpy as jnp
import numpy as np

from nnjax.bench.measure import compare, interleaved, median_ratio, self_spread


def test_the_median_ratio_forgets_outliers():
    a, b = np.full(11, 2.0), np.full(11, 1.0)
    a[3] = 100
    assert median_ratio(a, b) == 2


def test_a_program_against_itself_scatters_about_one():
    low, high = self_spread(np.random.default_rng(0).normal(1, 0.05, 400), np.random.default_rng(1))
    assert 0.97 < low < 1 < high < 1.03


def test_neither_of_a_pair_always_comes_second():
    order = []
    interleaved(lambda: order.append("a"), lambda: order.append("b"), 4)
    assert "".join(order[4:]) == "abbaabba"


def test_flops_and_memory_are_exact_counts():
    x = jnp.ones((32, 64))
    found = compare("square", lambda x: x @ x.T + x @ x.T * 2, lambda x: x @ x.T, (x,), budget_seconds=0.05)
    assert found.pairs >= 10
    assert found.flops_ratio >= 1
    assert found.time_ratio > 0
    twice = compare("chain", lambda x: jnp.tanh(x @ x.T) @ x, lambda x: jnp.tanh(x @ x.T), (x,), budget_seconds=0.05)
    assert 1.9 < twice.flops_ratio < 2.1
    assert jax.devices()
