import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.cases import cases
from nnjax.check.mutation.mutant_kinds import KINDS, on_cotangents
from nnjax.check.mutation.mutants import Outcome, _places, hunt, mutants

DEEP = nnjax.serial(*[nnjax.dense(5, 5), nnjax.sigmoid()] * 4)
CASES = {case.name: case for case in cases()}


def hunted(layer, x=None):
    x = jax.random.normal(jax.random.key(1), (7, 5)) if x is None else x
    return hunt(layer, layer.init(jax.random.key(0)), x)


def _ambiguous(o: Outcome) -> bool:
    """The cotangents of y and labels in (y - t)^2 are each other's negatives: swapped is negated."""
    return (o.mutant, o.diagnosis) == ("leaves swapped", "negated")


def verify(outcomes: list[Outcome]) -> None:
    survived = [(o.mutant, o.where) for o in outcomes if o.status == "survived"]
    assert not survived
    own = [o for o in outcomes if o.status == "killed" and o.expected]
    right = [o for o in own if o.expected == o.diagnosis or _ambiguous(o)]
    assert len(right) >= 0.95 * len(own), [(o.mutant, o.where, o.diagnosis) for o in own if o not in right]


@pytest.mark.parametrize("name", ["dense", "relu", "softmax", "softmax_cross_entropy, weighted"])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_every_mutant_of_a_layer_is_killed(name):
    params, x, key = CASES[name].make(0)
    outcomes = hunt(CASES[name].layer, params, x, key=key)
    assert sum(o.status == "killed" for o in outcomes) >= 10
    verify(outcomes)


@pytest.mark.in_turn
def test_a_mean_for_a_sum_at_batch_one_is_equivalent_and_not_counted():
    statuses = {o.mutant: o.status for o in hunted(nnjax.dense(5, 3), jnp.ones((1, 5)))}
    assert statuses["mean for sum"] == "equivalent"
    assert statuses["sign"] == "killed"


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.in_turn
def test_every_mutant_of_every_case_is_killed(name, monkeypatch):
    """Every kind in a layer; in each of its variants a third of the kinds, a different third each time."""
    params, x, key = CASES[name].make(0)
    layer = CASES[name].layer
    alike = [other for other in CASES if other.split(",")[0] == name.split(",")[0]]
    if (turn := alike.index(name)) and not layer.parts:
        monkeypatch.setattr("nnjax.check.mutation.mutants.KINDS", KINDS[turn % 3 :: 3])
    inside = 1 if name.split(",")[0] in ("gpt", "llama", "moe") else 2
    outcomes = hunt(layer, params, x, key=key, inside=inside)
    verify(outcomes)
    killed = [o for o in outcomes if o.where and o.status == "killed"]
    assert all(o.layer for o in killed)
    parts = {where for where, part, _ in _places(layer) if where and not part.parts}
    assert len({o.where for o in killed} & parts) >= 0.6 * len(parts)  # some kinds change nothing in some parts


def test_mutants_are_planted_in_every_part_of_a_model():
    model = nnjax.gpt(5, 4, 2, 2, 4)
    found = list(mutants(model, inside=1))
    inside = [where for _, where, _ in found if where]
    assert {"0", "1/0", "1/1/0/0/0/1", "1/1/0/1/0/2/1", "2"} <= set(inside)
    assert len(set(inside)) == len(inside) == len(list(_places(model))) - 1
    assert len({kind.name for kind, where, _ in found if where}) > 5
    assert len(list(mutants(model))) > 10 * len(inside)


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_layer_named_is_right_for_every_mutant_planted_in_eight_layers():
    outcomes = hunted(DEEP)
    planted = [o for o in outcomes if o.where and o.status == "killed"]
    assert len(planted) > 80
    assert {o.where for o in planted} == {str(i) for i in range(8)}
    wrong = [(o.mutant, o.where, o.layer) for o in planted if o.layer.split(":")[0] != o.where]
    assert not wrong
    assert {o.mutant for o in outcomes} >= {"no transpose", "inverse for transpose", "missing sigma'", "sigma' at the wrong z"}
    verify(outcomes)


@pytest.mark.in_turn
def test_a_negated_softmax_at_scale_1000_is_never_passed():
    softmax = nnjax.softmax()
    wrong = on_cotangents(softmax, lambda right, residuals, ct_y: ((), -right[1]))
    for seed in range(5):
        x = 1000 * jnp.asarray(np.random.default_rng(seed).standard_normal((7, 6)), jnp.float32)
        right = nnjax.check_layer(softmax, (), x, seed=seed)
        assert not right.failures
        assert not nnjax.check_layer(wrong, (), x, seed=seed).ok


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_zeroed_small_entry_in_bfloat16_is_never_passed():
    dense = nnjax.dense(6, 5)
    params = dense.init(jax.random.key(0))

    def zeroed(right, residuals, ct_y):
        g = right[0].w
        smallest = jnp.argsort(jnp.abs(g).ravel())[3]
        return right[0]._replace(w=g.ravel().at[smallest].set(0).reshape(g.shape)), right[1]

    report = nnjax.check_layer(on_cotangents(dense, zeroed), params, jax.random.normal(jax.random.key(1), (7, 6)))
    assert {row.leaf for row in report.failures} == {"params.w"}


@pytest.mark.in_turn
def test_a_negated_dropout_whose_mask_differs_under_x64_is_never_passed():
    def mask(key, x):  # drawn in x's dtype: float64 draws another mask
        return jax.random.uniform(key, x.shape, x.dtype) > 0.5

    def apply(params, x, *, key=None):
        return jnp.where(mask(key, x), 2 * x, jnp.zeros_like(x))

    def layer(sign):
        def fwd(params, x, *, key=None):
            return apply(params, x, key=key), (mask(key, x),)

        def bwd(residuals, ct_y):
            return (), jnp.where(residuals[0], sign * 2 * ct_y, jnp.zeros_like(ct_y))

        return nnjax.Layer("drop", lambda key: (), apply, fwd, bwd)

    x, key = jax.random.normal(jax.random.key(1), (7, 6)), jax.random.key(2)
    only = {"dtypes": ["float64", "float32"], "transforms": ["jit"], "witnesses": ()}
    for seed in range(3):
        assert "reference and truth disagree" in str(nnjax.check_layer(layer(1), (), x, key=key, seed=seed, **only))
        assert not nnjax.check_layer(layer(-1), (), x, key=key, seed=seed, **only).ok
