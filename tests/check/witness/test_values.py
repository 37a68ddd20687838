import numpy as np
import pytest

from nnjax.check.witness.values import directions, slope, tied


def along(f, x, u=None):
    x = np.asarray(x, np.float64)
    return slope(lambda args: float(f(args[0])), [x], [np.ones_like(x) if u is None else np.asarray(u, np.float64)])


SMOOTH = {
    "sin": (np.sin, np.cos),
    "exp": (np.exp, np.exp),
    "sqrt": (np.sqrt, lambda x: 0.5 / np.sqrt(x)),
    "x^7": (lambda x: x**7, lambda x: 7 * x**6),
    "1/x": (lambda x: 1 / x, lambda x: -1 / x**2),
}
KINKS = {"abs": (np.abs, (1, -1)), "relu": (lambda x: max(x, 0.0), (1, 0)), "bent": (lambda x: max(2 * x, -x), (2, -1))}


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("x", [0.3, 2.0, 50.0])
def test_the_slope_of_a_smooth_function_is_within_its_error(name, x):
    f, exact = SMOOTH[name][0], SMOOTH[name][1](x)
    found = along(f, x)
    value, off = found.both
    assert not found.kink
    assert abs(value - exact) <= 16 * off + 1e-9 * abs(exact)
    assert off <= 1e-6 * max(abs(exact), 1e-3)
    assert found.allows(exact)
    assert not found.allows(1.001 * exact)


@pytest.mark.parametrize("name", KINKS)
def test_a_kink_has_two_slopes_and_allows_what_lies_between(name):
    f, sides = KINKS[name]
    found = along(f, 0.0)
    assert found.kink
    np.testing.assert_allclose((found.right[0], found.left[0]), sides, atol=1e-9)
    for share in (0.0, 0.5, 1.0):
        assert found.allows(share * sides[0] + (1 - share) * sides[1])
    assert not found.allows(sides[0] + 0.1)
    assert not found.allows(sides[1] - 0.1)


@pytest.mark.parametrize("seed", range(20))
def test_where_a_function_is_rounded_to_float32_the_error_says_so(seed):
    x = np.random.default_rng(seed).uniform(0.5, 3.0)
    value, off = along(lambda x: np.float32(np.exp(np.sin(x))), x).both
    exact = np.cos(x) * np.exp(np.sin(x))
    assert abs(value - exact) <= 16 * off
    assert off < 0.05


def test_no_slope_is_finite_where_no_value_is():
    assert not np.isfinite(along(lambda x: np.nan, 1.0).both[0])
    with np.errstate(invalid="ignore"):
        edge = along(np.sqrt, 0.0)
    assert not np.isfinite(edge.left[0])


def test_directions_move_one_array_and_every_entry_by_its_own_size():
    x = [np.array([1e-3, 1.0, 1e3]), np.ones((2, 2)), np.zeros(2)]
    for u in directions(x, 0, 0):
        assert np.abs(u[0][1]) < 0.5 < np.abs(u[0][2])
        assert not u[1].any()
    assert all(u[2].all() for u in directions(x, 2, 0))


def test_entries_that_are_equal_are_moved_together_too():
    x = [np.array([1.0, 2.0, 2.0]), np.array([2.0])]
    found = tied(x, [np.array([False, True, True]), np.array([False])])
    assert [[list(u) for u in d] for d in found] == [[[0, 1, 0], [0]], [[0, 0, 1], [0]], [[0, 1, 1], [1]]]
    assert tied(x, [np.zeros(3, bool), np.zeros(1, bool)]) == []
