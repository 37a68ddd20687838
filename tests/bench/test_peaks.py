import math

import jax
import pytest

from nnjax.bench.kinds import MAIN, Kind
from nnjax.bench.peaks import BATCHES, Peaks, peaks, shares, shortest


def test_both_peaks_of_a_device_are_measured():
    found = peaks(jax.devices("cpu")[0], [MAIN, Kind("float32", "highest"), Kind("bfloat16")], side=64, length=1 << 12)
    assert list(found.products) == ["float32 default", "float32 highest", "bfloat16"]
    assert all(1e6 < rate < 1e16 for rate in found.products.values())
    assert 1e5 < found.memory < 1e14
    assert "TFLOP/s; memory" in str(found)


def test_the_shortest_of_some_batches_counts():
    lasts = iter([0.5, 0.02, 1.0, 0.4, 0.8])  # the first compiles, the second sets the size of a batch
    ran = []
    assert shortest(lambda: ran.append(1), lambda run: (run(), next(lasts))[1]) == pytest.approx(0.4 / 5)
    assert len(ran) == 2 + 5 * BATCHES


def test_shares_are_of_the_peak_of_their_kind_and_unknown_where_nothing_is_multiplied():
    most = Peaks({"float32 default": 1e12, "bfloat16": 4e12}, 1e11)
    assert shares(most, MAIN, 1e9, 1e9, 0.1) == (0.01, 0.1)
    assert shares(most, Kind("bfloat16"), 1e9, 1e9, 0.1) == (0.0025, 0.1)
    for unknown in (0.0, math.nan):
        assert shares(most, MAIN, unknown, 1e9, 0.1) == (None, 0.1)
