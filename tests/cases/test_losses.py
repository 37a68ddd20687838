import jax.numpy as jnp
import numpy as np

from nnjax.cases.losses import classes, fused, of_losses

CASES = {case.name: case for case in of_losses()}


def test_an_example_of_weight_0_holds_what_is_no_number():
    y, _, weights = classes(3, weighted=True)(np.random.default_rng(0), (7,))
    assert weights[0] == 0
    np.testing.assert_array_equal(jnp.isnan(y).all(-1), weights == 0)
    (h, _), _, weights = fused(4, 2, weighted=True)(np.random.default_rng(0), (5,))
    np.testing.assert_array_equal(jnp.isnan(h).all(-1), weights == 0)


def test_a_class_that_is_absent_is_never_the_label():
    y, labels = classes(4, weighted=False, absent=True)(np.random.default_rng(0), (50,))
    assert jnp.isneginf(y).any()
    assert jnp.isfinite(jnp.take_along_axis(y, labels[:, None], -1)).all()


def test_what_is_ignored_holds_what_is_no_number():
    _, (y, labels), _ = CASES["softmax_cross_entropy, none"].make(0)
    assert labels.dtype == jnp.int8
    assert (labels == -100).any()
    assert (labels != -100).any()
    np.testing.assert_array_equal(jnp.isnan(y).all(-1), labels == -100)


def test_probabilities_sum_to_1_and_are_0_where_a_class_is_not_there():
    _, (y, q, weights), _ = CASES["softmax_cross_entropy, probabilities"].make(0, (50,))
    seen = np.asarray(weights) != 0
    np.testing.assert_allclose(np.asarray(q)[seen].sum(-1), 1, rtol=1e-6)
    assert jnp.isneginf(y).any()
    assert not np.asarray(q)[np.isneginf(y)].any()


def test_a_reference_is_a_model_of_its_own_or_given():
    _, (_, (_, reference)), _ = CASES["linear_dpo"].make(0, (3,))
    assert [a.shape for a in reference] == [(3, 2, 3, 3), (6, 3)]
    _, (_, (_, reference), _), _ = CASES["linear_dpo, given reference"].make(0, (3,))
    assert reference.shape == (3, 2)
