import jax.numpy as jnp
import numpy as np

from nnjax.cases.recurrence import decays, padded, recurrences


def test_padding_holds_nan_and_some_sequences_are_empty_or_full():
    x, lengths = padded(4, 2)(np.random.default_rng(0), (7,))
    assert {0, 4} <= set(lengths.tolist())
    np.testing.assert_array_equal(jnp.isnan(x).all(-1), np.arange(4) >= np.asarray(lengths)[:, None])
    assert jnp.isfinite(x).any(-1).sum() == lengths.sum()


def test_some_decays_are_exactly_zero_some_near_it_and_some_near_one():
    a, b, h = decays(50, 3)(np.random.default_rng(0), (2,))
    assert (a == 0).sum() > 10
    assert ((a > 0) & (a < 0.01)).sum() > 10
    assert (a > 0.99).sum() > 10
    assert (a.shape, b.shape, h.shape) == ((2, 50, 3), (2, 50, 3), (2, 3))


def test_what_is_truncated_is_longer_than_a_part():
    cut = [case for case in recurrences() if "truncated" in case.name]
    assert all(case.layer.cuts for case in cut)
    assert len(cut) == 2
