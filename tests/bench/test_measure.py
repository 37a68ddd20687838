import jax
import jax.numpy as jnp
import numpy as np

from nnjax.bench.measure import compare, compiled, interleaved, median_ratio, pairs_within, self_spread


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


def test_at_least_five_pairs_are_measured():
    assert pairs_within(lambda: None, 1e-9) == 5
    assert pairs_within(lambda: None, 10.0) == 2000
    ran = []
    assert pairs_within(lambda: ran.append(1), 1e-9, least=2) == 2
    interleaved(lambda: ran.append("a"), lambda: ran.append("b"), 2)
    assert ran == [1, 1, *"ab", *"abba"]
    found = compare("tanh", jnp.tanh, jnp.tanh, (jnp.ones(9),), 1e-9, least=2)
    assert found.pairs == 2
    assert found.least_bytes == 2 * 9 * 4


def test_flops_and_memory_are_exact_counts():
    x = jnp.ones((32, 64))
    found = compare("square", lambda x: x @ x.T + x @ x.T * 2, lambda x: x @ x.T, (x,), budget_seconds=0.05)
    assert found.pairs >= 5
    assert found.flops_ratio >= 1
    assert found.time_ratio > 0
    twice = compare("chain", lambda x: jnp.tanh(x @ x.T) @ x, lambda x: jnp.tanh(x @ x.T), (x,), budget_seconds=0.05)
    assert 1.9 < twice.flops_ratio < 2.1
    assert compiled(lambda x: x @ x.T @ x @ x.T, (x,)).temp_bytes >= 32 * 32 * 4


def test_every_reference_has_its_column_and_the_first_is_the_plain_one():
    x = jnp.ones((256, 256))

    def slow(x):
        return jax.lax.fori_loop(0, 40, lambda i, y: jnp.tanh(y @ x), x)

    found = compare("tanh", jnp.tanh, {"plain": jnp.tanh, "slow": slow}, (x,), budget_seconds=0.2)
    assert list(found.time_ratios) == ["plain", "slow"]
    assert found.time_ratio == found.time_ratios["plain"]
    assert found.time_ratios["slow"] < 0.5
    assert set(found.temp_bytes) == {"hand", "plain", "slow"}
    assert found.fastest == "plain"
