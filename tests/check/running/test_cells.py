import jax
import jax.numpy as jnp
import numpy as np

import nnjax
from nnjax.check.layers import layer_subject
from nnjax.check.options import options
from nnjax.check.running.cells import cells, float32_last, places
from nnjax.check.subject import split

LAYER = nnjax.tanh()


def measured(layer, x, transforms):
    spec, diff, other = split(((), x, None), {}, ("params", "x", "key"))
    return cells(layer_subject(layer, spec), diff, other, options(["float32", "float64"], transforms, witnesses=()))


def test_the_rule_under_test_is_never_run():
    def refuse(*args, **how):
        raise AssertionError("a budget must not depend on the rule")

    x = jnp.linspace(-2, 2, 7)
    right, wrong = (measured(layer, x, ["jit"]) for layer in (LAYER, LAYER._replace(fwd=refuse, bwd=refuse)))
    assert [c.dtype for c in right] == [np.float32, np.float64]
    for a, b in zip(right, wrong):
        for ours, theirs in zip(a.found[0], b.found[0]):
            np.testing.assert_array_equal(ours.truth, theirs.truth)
            np.testing.assert_array_equal(ours.bound, theirs.bound)


def test_one_point_unless_several_are_asked_for_and_scaled_cotangents_where_every_leaf_is_large():
    small, large = jnp.linspace(-2, 2, 7), jax.random.normal(jax.random.key(0), (10_000,))
    assert [len(c.points) for c in measured(LAYER, small, ["jit"])] == [1, 1]
    for cell in measured(LAYER, small, ["vmap"]):
        (x, _), (near, _) = cell.points
        assert (x[0] != near[0]).any()
    for cell in measured(LAYER, large, ["vmap"]):
        (x, ct), (same, scaled) = cell.points
        np.testing.assert_array_equal(x[0], same[0])
        np.testing.assert_array_equal(-2 * ct[0], scaled[0])
        first, second = cell.found
        np.testing.assert_array_equal(first[0].truth, second[0].truth)  # the value has no cotangent
        np.testing.assert_array_equal(-2 * first[1].truth, second[1].truth)
        np.testing.assert_array_equal(2 * first[1].bound, second[1].bound)


def test_float32_starts_last():
    assert [float32_last(p) for p in places(options(["float32", "float64"]))] == [True, False]
