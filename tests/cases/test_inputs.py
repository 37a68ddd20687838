import numpy as np

from nnjax.cases.inputs import hard, positions


def test_hard_inputs_hold_zeros_ties_and_saturation():
    x = np.asarray(hard(np.random.default_rng(0), (100, 10)))
    assert (x == 0).sum() > 20
    assert (x == 0.5).sum() > 20
    assert np.abs(x).max() > 30


def test_a_mask_comes_with_positions_where_it_is_asked_for():
    x, mask = positions(5, 3, masked=True)(np.random.default_rng(0), (2,))
    assert (x.shape, mask.shape, mask.dtype) == ((2, 5, 3), (2, 5), bool)
