import numpy as np
import pytest

from nnjax.check.witness.rounding import Rounder, neighbour, random_like


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_a_rounded_number_is_one_of_its_neighbours_and_ties_stay_ties(dtype):
    eps = float(np.finfo(dtype).eps)
    x = np.asarray([1.5, -1.5, 0.0, 3.25, 1.5, np.finfo(dtype).max], dtype)
    for way in range(16):
        moved = Rounder.of(x, eps, 3).draw(way)
        assert moved.dtype == dtype
        assert np.isfinite(moved).all()
        assert (np.abs(moved.astype(np.float64) - x) <= 2 * eps * np.abs(x.astype(np.float64))).all()
        assert moved[0] == moved[4] == -moved[1]
        assert moved[2] == 0


def test_a_neighbour_keeps_signs_and_ties_and_is_the_same_point_in_every_dtype():
    x = np.asarray([1.5, -2.0, 0.0, 1.5])
    near = neighbour(x, 5)
    assert near[0] == near[3]
    assert (np.sign(near) == np.sign(x)).all()
    assert (np.abs(near) <= np.abs(x)).all()
    np.testing.assert_allclose(neighbour(x.astype(np.float32), 5), near, rtol=1e-6)


def test_random_cotangents_are_neither_ones_nor_near_zero():
    drawn = random_like(np.random.default_rng(0), (1000,), np.float32)
    assert (np.abs(drawn) >= 0.5).all()
    assert (np.abs(drawn) <= 1.5).all()
    assert 300 < (drawn > 0).sum() < 700
    assert len(np.unique(drawn)) > 900
