import pytest

from nnjax.bench.measure import Comparison
from nnjax.bench.rows.entry import SMALL, Entry


@pytest.mark.parametrize(
    ("ratio", "milliseconds", "temp_ratio", "temp_bytes", "met"),
    [
        (1.02, 9.0, 1.0, 2 * SMALL, True),
        (1.03, 9.0, 1.0, 2 * SMALL, False),
        (1.03, 0.9, 1.0, 2 * SMALL, True),  # a short time, within the spread
        (1.20, 0.9, 1.0, 2 * SMALL, False),
        (1.00, 9.0, 1.1, 2 * SMALL, False),
        (1.00, 9.0, 1.1, SMALL - 1, True),
    ],
)
def test_when_the_targets_are_met(ratio, milliseconds, temp_ratio, temp_bytes, met):
    entry = Entry("a row", lambda: None)
    found = Comparison(
        "a row", milliseconds, {"jax.grad": ratio}, (0.9, 1.1), 1.0, temp_ratio, 1.0, {"hand": temp_bytes, "jax.grad": 9}, 20
    )
    assert entry.met(found) is met
