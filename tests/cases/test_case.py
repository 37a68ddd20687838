import jax
import jax.numpy as jnp

from nnjax.cases import LEADS, cases
from nnjax.cases.case import quickly


def test_a_seed_makes_the_same_case_again_and_another_seed_another():
    case = next(case for case in cases() if case.keyed)
    first, again, other = (case.make(seed) for seed in (0, 0, 1))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first, again))
    assert not jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first[1], other[1]))


def test_leading_axes_hold_none_and_an_empty_batch():
    assert {(), (0,), (1,)} <= set(LEADS)


def test_quickly_runs_the_function_itself():
    assert quickly(lambda x: 2 * x, jnp.ones(3)).tolist() == [2, 2, 2]
