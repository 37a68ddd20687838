import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.fast.cpu.attend_blocks import _pairs, blocks_bwd, blocks_fwd
from nnjax.layers.attend import attend_apply


def test_causal_pairs_leave_out_what_no_query_sees():
    i, j = _pairs(6, 6, 2, 3, True)
    assert list(zip(i.tolist(), j.tolist())) == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert _pairs(6, 6, 2, 3, False)[0].size == 6


@pytest.mark.parametrize("block", [1, 2, 5, 100])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_nothing_depends_on_the_size_of_blocks(block):
    rng = np.random.default_rng(0)
    q, ct = (jnp.asarray(rng.standard_normal((2, 2, 1, 5, 4)).astype(np.float32)) for _ in range(2))
    k, v = (jnp.asarray(rng.standard_normal((2, 2, 5, 4)).astype(np.float32)) for _ in range(2))
    y, log_z = blocks_fwd(q, k, v, None, causal=True, block=block)
    np.testing.assert_allclose(y, attend_apply(2 * q, k, v, None, causal=True), atol=1e-5)  # its d = 4 divides by 2
    cts = blocks_bwd(q, k, v, None, log_z, (ct * y).sum(-1), ct, causal=True, block=block)
    for a, b in zip(cts, blocks_bwd(q, k, v, None, log_z, (ct * y).sum(-1), ct, causal=True, block=3), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
