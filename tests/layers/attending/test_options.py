import jax.numpy as jnp
import pytest

from nnjax.layers.attending.options import Sizes, asks_for_more, expect_causal, expect_window, extras, scoring

SIZES = Sizes((2,), 3, 5, 4, 2)


@pytest.mark.parametrize(
    ("asked", "found"), [(True, "start"), (False, None), ("start", "start"), ("end", "end")]
)  # fmt: skip
def test_causal_order_where_there_are_as_many_keys_as_queries(asked, found):
    assert expect_causal("f", asked, 3, 3) == found


def test_where_there_are_not_it_has_to_be_said_at_which_end_they_meet():
    with pytest.raises(ValueError, match=r"as many queries as keys, got 3 and 5.*start.*end"):
        expect_causal("f", True, 3, 5)
    assert expect_causal("f", "end", 3, 5) == "end"


@pytest.mark.parametrize(("asked", "found"), [(None, (None, None)), (2, (2, 2)), ((1, None), (1, None)), ([0, 3], (0, 3))])
def test_a_window_is_a_pair(asked, found):
    assert expect_window("f", asked) == found


def test_an_axis_of_one_stays_so_and_heads_become_groups():
    found = extras("f", SIZES, bias=jnp.zeros((1, 4, 1, 5)), mask=jnp.ones((2, 1, 3, 1), bool), slopes=jnp.ones(4))
    assert found.bias.shape == (1, 2, 2, 1, 5)
    assert found.mask.shape == (2, 1, 1, 3, 1)
    assert found.slopes.shape == (2, 2)


def test_a_mask_of_keys_and_causal_order_are_not_more_than_attend_does():
    plain, per_key = scoring("f", 4, causal="start"), extras("f", SIZES, mask=jnp.ones((2, 5), bool))
    assert not asks_for_more(plain, per_key, 4, 4)
    assert asks_for_more(plain, per_key, 4, 3)
    assert asks_for_more(scoring("f", 4, causal=None, window=2), per_key, 4, 4)
    assert asks_for_more(plain, extras("f", SIZES, mask=jnp.ones((2, 1, 3, 5), bool)), 4, 4)
    assert asks_for_more(plain, extras("f", SIZES, segments=(jnp.zeros((2, 3), int), jnp.zeros((2, 5), int))), 4, 4)
