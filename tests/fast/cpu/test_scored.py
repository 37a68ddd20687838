import pytest

from nnjax.fast.cpu.scored import Band, band_of, rows_of
from nnjax.layers.attending.scored import Scoring


@pytest.mark.parametrize(
    ("how", "band"),
    [
        (Scoring(1.0), Band(0, None, None)),
        (Scoring(1.0, causal="start", window=(2, 3)), Band(0, 2, 0)),
        (Scoring(1.0, causal="end"), Band(4, None, 0)),
        (Scoring(1.0, window=(None, 1)), Band(0, None, 1)),
    ],
)
def test_causal_order_is_a_window_that_ends_at_the_query(how, band):
    assert band_of(how, 3, 7) == band


@pytest.mark.parametrize(
    "band", [Band(0, None, None), Band(0, 1, 0), Band(4, 2, 1), Band(-3, 0, 2), Band(0, None, 0), Band(9, 1, 1)]
)
@pytest.mark.parametrize("n", [1, 2, 3, 64])
def test_rows_hold_every_pair_that_sees_each_other_and_rows_of_keys_the_same(band, n):
    queries, keys = 7, 5
    sees = {
        (i, j)
        for i in range(queries)
        for j in range(keys)
        if (band.left is None or j >= band.first + i - band.left) and (band.right is None or j <= band.first + i + band.right)
    }
    forward = rows_of(queries, keys, n, band.left, band.right, band.first)
    backward = rows_of(keys, queries, n, band.right, band.left, -band.first)
    there = {(i, j) for rows, columns in forward for i in range(7)[rows] for j in range(5)[columns]}
    back = {(i, j) for columns, rows in backward for i in range(7)[rows] for j in range(5)[columns]}
    assert sees <= there
    assert sees <= back
    assert [rows for rows, _ in forward] == [slice(a, min(a + n, queries)) for a in range(0, queries, n)]
    if n == 1:  # and no more: what a window hides is not computed
        assert there == back == sees
