import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import ops


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("two", [2, [2, 2], (2, np.int64(2)), np.array([2, 2]), np.int8(2)], ids=repr)
def test_windows_are_numbers_or_lists_of_any_kind(two):
    x, w = normal(1, 4, 5, 2), normal(3, 2, 1, 4)
    window = [2, 2] if np.ndim(two) == 0 else two
    np.testing.assert_array_equal(ops.max_pool(x, window, two), ops.max_pool(x, (2, 2), (2, 2)))
    expected = ops.conv(x, w, stride=(2, 2), padding=((2, 2), (2, 2)), dilation=(2, 2), groups=2)
    got = ops.conv(x, w, stride=two, padding=two, dilation=two, groups=np.int64(2))
    np.testing.assert_array_equal(got, expected)


def test_a_bool_is_not_a_size_even_after_a_one():
    x, w = normal(1, 4, 5, 2), normal(3, 2, 2, 4)
    ops.conv(x, w, stride=1, groups=1)
    ops.max_pool(x, (1, 1), 1)
    for name in ("stride", "dilation", "padding", "groups"):
        with pytest.raises(ValueError, match=rf"conv: {name} must be"):
            ops.conv(x, w, **{name: True})
    with pytest.raises(ValueError, match="max_pool: stride must be"):
        ops.max_pool(x, (1, 1), True)
