import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.fast.cpu import attend_rows
from nnjax.fast.cpu.attend_rows import _rows, rows_bwd, rows_fwd
from nnjax.layers.attend import attend_apply, attend_bwd, attend_fwd


def test_causal_rows_stop_at_their_last_query_and_the_last_row_may_be_short():
    assert _rows(5, 5, 2, True, keys=False) == [
        (slice(0, 2), slice(0, 2)),
        (slice(2, 4), slice(0, 4)),
        (slice(4, 5), slice(0, 5)),
    ]
    assert _rows(3, 7, 2, False, keys=False) == [(slice(0, 2), slice(0, 7)), (slice(2, 3), slice(0, 7))]


def test_of_causal_keys_those_queries_are_taken_that_see_them():
    assert _rows(5, 5, 2, True, keys=True) == [
        (slice(0, 2), slice(0, 5)),
        (slice(2, 4), slice(2, 5)),
        (slice(4, 5), slice(4, 5)),
    ]
    assert _rows(3, 7, 2, False, keys=True) == [(slice(0, 2), slice(0, 7)), (slice(2, 3), slice(0, 7))]


@pytest.mark.parametrize("chunk", [1, 2 * 2 * 3 * 5, 1 << 20])
@pytest.mark.slow
@pytest.mark.in_turn
def test_nothing_depends_on_the_size_of_chunks_or_rows(monkeypatch, chunk):
    rng = np.random.default_rng(0)
    q, ct = (jnp.asarray(rng.standard_normal((3, 2, 2, 5, 4)).astype(np.float32)) for _ in range(2))
    k, v = (jnp.asarray(rng.standard_normal((3, 2, 5, 4)).astype(np.float32)) for _ in range(2))
    keep = jnp.asarray(rng.random((3, 5)) < 0.7)
    expected = attend_apply(q, k, v, keep, causal=True)
    _, residuals = attend_fwd(q, k, v, keep, causal=True)
    monkeypatch.setattr(attend_rows, "PRODUCTS", chunk)
    y, log_z = rows_fwd(q, k, v, keep, causal=True, block=3)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    for a, b in zip(
        rows_bwd((q, k, v, keep, y, log_z), ct, causal=True, block=3), attend_bwd(residuals, ct, causal=True), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)
