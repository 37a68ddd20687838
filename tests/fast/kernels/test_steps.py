import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.fast.kernels import steps
from nnjax.fast.kernels.plan import Plan

PLAN = Plan("cuda", 7, 7, 4, 2, 3, 4)


@pytest.mark.parametrize("causal", [True, False])
def test_what_is_seen_and_which_blocks_hold_some_of_it(causal):
    whole = np.arange(8)[:, None] >= np.arange(9)[None] if causal else np.ones((8, 9), bool)
    whole = whole & (np.arange(8) < 7)[:, None] & (np.arange(9) < 7)[None]
    for i in range(4):
        for j in range(3):
            block = whole[2 * i : 2 * i + 2, 3 * j : 3 * j + 3]
            np.testing.assert_array_equal(steps.seen(i, j, PLAN, causal), block)
            np.testing.assert_array_equal(steps.seen(i, j, PLAN, causal, keys_first=True), block.T)
            assert block.any() == (j < int(steps.keys_behind(jnp.int32(i), PLAN, causal)))
            assert block.any() == (i >= int(steps.queries_from(jnp.int32(j), PLAN, causal)))


def test_pieces():
    x = jnp.array([[1.0, jnp.nan], [-jnp.inf, 4.0]])
    np.testing.assert_array_equal(steps.finite(x, True), [[1, 0], [0, 4]])
    assert steps.finite(x, False) is x
    np.testing.assert_array_equal(steps.only(x, jnp.array([[True, False], [False, True]]), -1.0), [[1, -1], [-1, 4]])
    y = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(steps.row_sum(y), [[3], [7]])
    np.testing.assert_array_equal(steps.rescaled(y, jnp.array([[2.0], [10.0]])), [[2, 4], [30, 40]])
    np.testing.assert_array_equal(steps.scaled(y, PLAN), y / 2)
    np.testing.assert_array_equal(steps.less(y, jnp.array([[1.0], [3.0]])), [[0, 1], [0, 1]])
    np.testing.assert_array_equal(steps.less(y, jnp.array([[1.0, 2.0]])), [[0, 0], [2, 2]])


def test_a_block_of_a_head_is_found_in_either_order():
    x = jnp.arange(4 * 2 * 3, dtype=jnp.float32).reshape(4, 2, 3)  # (positions, heads, d), read as arrays are
    for plan, ref in ((PLAN, x), (PLAN._replace(platform="tpu"), x.swapaxes(0, 1))):

        class Ref:
            def __getitem__(self, at, ref=ref):
                return ref[tuple(slice(i.start, i.start + i.size) if hasattr(i, "size") else i for i in at)]

        np.testing.assert_array_equal(steps.head_of(Ref(), 1, 1, plan), x[2:4, 1])
