import jax
import numpy as np
import pytest

import nnjax
from nnjax.bench.rows.losses import fused, graded, of_losses, preferred, taught


def test_rows_have_names_of_their_own_and_fused_ones_are_leaner():
    rows = of_losses()
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.peers is None for row in rows)
    assert all(row.temp < 0.3 for row in rows if row.name.startswith("linear_"))


@pytest.mark.parametrize(
    ("loss", "inputs"),
    [
        (nnjax.linear_cross_entropy(reduction="none"), fused(6, 11, 3)),
        (nnjax.linear_kl_divergence(), taught(6, 11, 3)),
        (nnjax.linear_dpo(), preferred(2, 2, 11, 3)),
    ],
)
def test_hand_and_references_compute_the_same(loss, inputs):
    hand, references, args = graded(loss, inputs)()
    found = jax.jit(hand)(*args)
    for reference in references.values():
        right = jax.jit(reference)(*args)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
