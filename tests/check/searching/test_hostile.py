import numpy as np
import pytest

from nnjax.check.searching.hostile import drawn, leaves_of, lengths_of, other_lengths, values

RNG = np.random.default_rng(0)
X, W = RNG.standard_normal((8, 4)), RNG.standard_normal((3, 4, 5))
SIZES, IDS, MASK = np.int32([3, 2, 3]), np.int32([4, 1, 4, 0, 2]), RNG.random((4, 4)) < 0.5


def test_kinds_are_inferred_from_an_example():
    kinds = [leaf.kind for leaf in leaves_of([X, W, SIZES, IDS, MASK, np.int32([0, 0, 1, 6]), 3])]
    assert kinds == ["float", "float", "partition", "int", "bool", "sorted", "fixed"]


@pytest.mark.parametrize("sizes", [{}, {8: 9}, {8: 1}, {3: 7}, {4: 0}, {8: 0}])
def test_groups_sum_to_the_length_that_they_did(sizes):
    leaves = leaves_of([X, W, SIZES])
    x, w, groups = drawn(leaves, sizes, 0)
    assert groups.sum() == len(x)
    assert len(groups) == len(w)
    for _, (new, _, parts) in values(leaves, [x, w, groups], 0):
        assert parts.sum() == len(new)
        assert (parts >= 0).all()


def test_a_permutation_stays_one():
    leaves = leaves_of([X, np.int32([2, 0, 1, 4, 3, 5, 7, 6])])
    assert leaves[1].kind == "permutation"
    for sizes in ({}, {8: 9}, {8: 1}, {8: 0}):
        point = drawn(leaves, sizes, 0)
        for _, (x, order) in [("", point), *values(leaves, point, 0)]:
            assert sorted(order) == list(range(len(x)))


def test_axes_of_one_length_change_together_and_ids_stay_below():
    table, ids = RNG.standard_normal((10, 4)), np.int32([9, 3, 3])
    leaves = leaves_of([table, ids, RNG.standard_normal((4, 3))])
    assert lengths_of(leaves) == [10, 4, 3]
    for sizes in other_lengths(lengths_of(leaves)):
        new_table, new_ids, new_w = drawn(leaves, sizes, 1)
        assert new_table.shape[1] == new_w.shape[0]
        assert len(new_ids) == new_w.shape[1]
        if len(new_table) and len(new_ids):
            assert 0 <= new_ids.min()
            assert new_ids.max() < len(new_table)


def test_positive_numbers_stay_positive():
    x = RNG.uniform(0.1, 2.0, (4, 5))
    leaves = leaves_of([x])
    found = dict(values(leaves, [x], 0))
    assert {"ties", "all equal", "tiny numbers", "huge numbers"} <= set(found)
    assert all((x > 0).all() for (x,) in found.values())


def test_every_kind_of_values_is_what_its_name_says():
    x = RNG.standard_normal((4, 5)).astype(np.float32)
    found = dict(values(leaves_of([x, MASK]), [x, MASK], 0))
    assert len(np.unique(found["ties"][0])) < 10
    assert not found["all zero"][0].any()
    assert 0 < (found["zeros among others"][0] == 0).sum() < 20
    assert np.abs(found["huge numbers"][0]).max() > 1e18
    assert not found["a masked row"][1][0].any()
    assert not found["everything masked"][1].any()
    assert found["nothing masked"][1].all()
    added = np.where(MASK, 0.0, -np.inf)
    (new,) = dict(values(leaves_of([added]), [added], 0))["everything masked"]
    assert np.isneginf(new).all()
