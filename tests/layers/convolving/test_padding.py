import numpy as np
import pytest

from nnjax.layers.convolving.padding import expect_groups, expect_padding


@pytest.mark.parametrize(
    ("padding", "dims", "expected"),
    [
        ("SAME", 2, "SAME"),
        ("valid", 1, "VALID"),
        (1, 3, ((1, 1),) * 3),
        (np.int64(2), 1, ((2, 2),)),
        ((1, (0, 2), 3), 3, ((1, 1), (0, 2), (3, 3))),
        (np.array([[1, 0], [0, 2]]), 2, ((1, 0), (0, 2))),
    ],
    ids=str,
)
def test_words_numbers_and_pairs_are_understood(padding, dims, expected):
    assert expect_padding(padding, dims) == expected


@pytest.mark.parametrize(
    "padding", [-1, 1.0, True, "full", "Same", None, (1,), (1, 2, 3), ((1, 2, 3), 1), ((1, True), 1)], ids=str
)
def test_anything_else_is_refused_in_the_name_of_who_asked(padding):
    with pytest.raises(ValueError, match=r'max_pool: padding .*"SAME", "VALID"'):
        expect_padding(padding, 2, "max_pool")


def test_groups_divide_both_numbers_of_channels():
    expect_groups("conv", 4, 6, 2)
    for n_in, n_out in ((3, 4), (4, 3)):
        with pytest.raises(ValueError, match=rf"conv_transpose: groups .*groups=2, in_channels={n_in}, out_channels={n_out}"):
            expect_groups("conv_transpose", n_in, n_out, 2)
