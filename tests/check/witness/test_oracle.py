import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import nnjax
from nnjax.cases import cases
from nnjax.check.witness import oracle
from nnjax.check.witness.rounding import Rounder


def first_order(f):
    def run(diff, other, cts):
        y, pull = jax.vjp(f, *diff)
        return [y, *pull(cts[0])]

    return jax.jit(run)


def budgets(f, x, dtype, seed=0, **kwargs):
    ct = np.asarray(np.random.default_rng(seed).standard_normal(np.shape(f(*map(jnp.asarray, x))))).astype(dtype)
    return oracle.budgets(first_order(f), [np.asarray(a).astype(dtype) for a in x], [], [ct], dtype, seed, **kwargs)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, ml_dtypes.bfloat16, np.float16])
def test_rounding_moves_by_one_eps_keeps_ties_zeros_and_signs(dtype):
    x = np.array([0.0, 1.0, 1.0, -1.0, 3.3, 3.3, 0.1, 5.5, 7.7, -0.3]).astype(dtype)
    signs = []
    for way in range(16):
        moved = Rounder.of(x, oracle.eps_of(dtype), 7).draw(way)
        assert moved.dtype == x.dtype
        assert moved[0] == 0
        assert moved[1] == moved[2] == -moved[3]
        assert moved[4] == moved[5]
        step = np.abs(moved.astype(np.float64) / np.where(x == 0, 1, x).astype(np.float64) - 1)[1:]
        assert (step > 0.2 * oracle.eps_of(dtype)).all()
        assert (step < 2.1 * oracle.eps_of(dtype)).all()
        signs.append(moved.astype(np.float64) > x.astype(np.float64))
    assert (np.mean(signs, 0)[1:] > 0.1).all()
    assert (np.mean(signs, 0)[1:] < 0.9).all()


def test_rounding_does_not_overflow():
    top = np.array([np.finfo(np.float16).max, -np.finfo(np.float16).max], np.float16)
    for way in range(8):
        assert np.isfinite(Rounder.of(top, oracle.eps_of(np.float16), 7).draw(way)).all()


def test_norms_do_not_overflow_and_count_nan_as_infinite():
    np.testing.assert_allclose(oracle.norms(np.array([3e200, 4e200])), [5e200, 4e200])
    np.testing.assert_allclose(oracle.norms(np.array([3e-200, 4e-200])), [5e-200, 4e-200])
    assert (oracle.norms(np.array([1.0, np.nan])) == np.inf).all()
    assert (oracle.norms(np.zeros((0, 3))) == 0).all()


def test_the_truth_is_float64_and_already_on_the_host():
    (t,) = oracle.in_x64(lambda x: [jnp.sin(x[0])], [np.array([1.0, 2.0])])
    assert t.dtype == np.float64
    np.testing.assert_array_equal(t, np.sin([1.0, 2.0]))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, ml_dtypes.bfloat16])
def test_the_reference_is_within_its_own_budget_and_a_thousandth_more_is_not_in_float32(dtype):
    x = np.random.default_rng(0).standard_normal((20, 10))
    for budget in budgets(lambda x: jnp.tanh(x) * jnp.exp(x), [x], dtype):
        assert budget.judge(budget.reference)[2] == "ok"
        status = budget.judge(budget.reference * 1.001)[2]
        assert status == ("ok" if dtype == ml_dtypes.bfloat16 else "failed")


@pytest.mark.in_turn
def test_one_wrong_entry_among_a_million_is_seen_by_the_maximum_norm():
    x = np.random.default_rng(0).standard_normal(1_000_000)
    _, budget = budgets(jnp.tanh, [x], np.float32)
    wrong = budget.reference.copy()
    small = np.argsort(np.abs(wrong))[500_000]
    wrong[small] = 0
    assert budget.judge(wrong)[2] == "failed"


def test_a_gradient_that_is_zero_but_for_rounding_gets_the_wider_factor():
    def sums_to_zero(b, x):  # b shifts all entries equally, which does not change softmax
        return jax.nn.softmax(x + jnp.broadcast_to(b, x.shape))

    x = np.random.default_rng(0).standard_normal((7, 5))
    for seed in range(5):
        _, ct_b, _ = budgets(sums_to_zero, [np.array([0.3]), x], np.float32, seed)
        assert ct_b.zero
        assert ct_b.judge(ct_b.reference)[2] == "zero"
        assert ct_b.judge(ct_b.reference + 1)[2] == "failed"


def test_a_bound_that_reaches_the_gradient_is_vacuous():
    x = np.array([[1000.0, -1000.0, 999.0]])
    statuses = {budgets(jax.nn.softmax, [x], ml_dtypes.bfloat16, s)[1].judge(np.zeros((1, 3)))[2] for s in range(5)}
    assert "ok" not in statuses


def test_h_may_be_infinite_only_where_the_reference_is():
    _, budget = budgets(lambda x: x**3, [np.array([1.0, 200.0, 2.0])], np.float16)
    assert not np.isfinite(budget.reference[1])
    assert budget.judge(budget.reference)[2] == "ok"
    wrong = budget.reference.copy()
    wrong[0] = np.inf
    assert budget.judge(wrong)[2] == "failed"


def test_a_reference_that_is_another_function_in_float64_is_reported():
    def draws(x):  # the mask is drawn in the dtype of x, and float64 draws a different one
        return jnp.where(jax.random.uniform(jax.random.key(0), x.shape, x.dtype) > 0.5, x, 0)

    _, budget = budgets(draws, [np.random.default_rng(0).standard_normal(50)], np.float32)
    assert "reference and truth disagree" in budget.disagreement
    _, sound = budgets(jnp.sin, [np.ones(50)], np.float32)
    assert not sound.disagreement


def test_float64_must_be_as_precise_as_float64():
    x = np.random.default_rng(0).standard_normal((20, 10))
    _, budget = budgets(lambda x: jnp.tanh(x) * jnp.exp(x), [x], np.float64)
    assert (budget.bound < 1e-12 * budget.size).all()
    assert budget.judge(budget.reference.astype(np.float32).astype(np.float64))[2] == "failed"


def test_mixed_precision_must_be_as_precise_as_its_compute_dtype():
    x = np.random.default_rng(0).standard_normal((20, 10))

    def low(x):
        return (jnp.tanh(x.astype(jnp.bfloat16)) * jnp.exp(x.astype(jnp.bfloat16))).astype(x.dtype)

    h = np.asarray(jax.vjp(low, jnp.asarray(x, jnp.float32))[0], np.float64)
    plain, _ = budgets(lambda x: jnp.tanh(x) * jnp.exp(x), [x], np.float32)
    mixed, _ = budgets(lambda x: jnp.tanh(x) * jnp.exp(x), [x], np.float32, compute_dtype="bfloat16")
    assert plain.judge(h)[2] == "failed"
    assert mixed.judge(h)[2] == "ok"
    assert mixed.judge(-h)[2] == "failed"


def test_an_empty_leaf_is_compared_in_shape_only():
    for budget in budgets(jnp.sin, [np.zeros((0, 3))], np.float32):
        assert budget.judge(np.zeros((0, 3))) == (0.0, 0.0, "ok")


@pytest.mark.in_turn
def test_what_the_reference_loses_at_the_inputs_themselves_counts():
    """One seed of fifty: there are four ways to round the two entries of a row, and each loses less than the row itself."""
    case = next(case for case in cases() if case.name == "layer_norm of width 2")
    params, x, key = case.make(6)
    for dtypes in (["float32"], ["float32", "float64"]):
        report = nnjax.check_layer(case.layer, params, x, key=key, seed=6, dtypes=dtypes, transforms=["vmap"], witnesses=())
        report.raise_if_failed()
        wrong = case.layer._replace(bwd=lambda r, ct: jax.tree.map(lambda g: 1.001 * g, case.layer.bwd(r, ct)))
        found = nnjax.check_layer(wrong, params, x, key=key, seed=6, dtypes=dtypes, transforms=["vmap"], witnesses=())
        assert "x" in {row.leaf for row in found.failures}
