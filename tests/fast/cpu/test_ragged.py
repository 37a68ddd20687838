import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.fast.cpu import ragged
from nnjax.layers.routing.ragged import PLAIN


@pytest.mark.parametrize(
    ("sizes", "block"), [([3, 0, 4], 2), ([0, 0, 7], 3), ([1, 1, 1, 4], 4), ([7], 7), ([5, 2], 1)], ids=str
)
@pytest.mark.repeats
def test_blocks_take_every_row_once_in_its_group(sizes, block):
    rows = sum(sizes)
    found = ragged.blocks_of(jnp.array(sizes, jnp.int32), rows, block)
    taken = [(int(g), r) for g, s, c in zip(*found) for r in range(int(s), int(s) + int(c))]
    assert taken == list(zip(np.repeat(np.arange(len(sizes)), sizes).tolist(), range(rows)))
    assert max(int(c) for c in found.count) <= block


@pytest.mark.parametrize("sizes", [[3, 0, 8], [0, 11], [11, 0], [4, 4, 3], [1, 2, 0, 5]], ids=str)
@pytest.mark.parametrize("block", [1, 2, 4, 5])
@pytest.mark.repeats
def test_blocks_of_any_length_give_the_plain_products(block, sizes, monkeypatch):
    monkeypatch.setattr(ragged, "BLOCK", block)
    rng = np.random.default_rng(0)
    x, w, ct = (rng.standard_normal(s).astype(np.float32) for s in ((11, 3), (len(sizes), 3, 2), (11, 2)))
    given = jnp.array(sizes, jnp.int32)
    for ours, plain, args in (
        (ragged.ragged_dot, PLAIN.dot, (x, w)),
        (ragged.ragged_dot_t, PLAIN.dot_t, (ct, w)),
        (ragged.ragged_outer, PLAIN.outer, (x, ct)),
    ):
        found = jax.jit(lambda *a, ours=ours: ours(*a, given))(*args)
        np.testing.assert_allclose(found, plain(*map(jnp.asarray, args), given), rtol=1e-5, atol=1e-5)


def test_bfloat16_adds_up_over_blocks_in_float32(monkeypatch):
    monkeypatch.setattr(ragged, "BLOCK", 1)
    x, ct = jnp.ones((600, 1), jnp.bfloat16), jnp.ones((600, 1), jnp.bfloat16)
    assert float(ragged.ragged_outer(x, ct, jnp.array([600], jnp.int32))[0, 0, 0]) == 600  # bfloat16 stops at 256
