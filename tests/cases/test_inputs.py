import jax.numpy as jnp
import numpy as np

from nnjax.cases.inputs import classes, fused, hard, positions


def test_hard_inputs_hold_zeros_ties_and_saturation():
    x = np.asarray(hard(np.random.default_rng(0), (100, 10)))
    assert (x == 0).sum() > 20
    assert (x == 0.5).sum() > 20
    assert np.abs(x).max() > 30


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


def test_a_mask_comes_with_positions_where_it_is_asked_for():
    x, mask = positions(5, 3, masked=True)(np.random.default_rng(0), (2,))
    assert (x.shape, mask.shape, mask.dtype) == ((2, 5, 3), (2, 5), bool)
