import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.bench.rows.mixtures import mixtures, sorted_by_expert


def test_the_rows_are_beside_the_usual_spelling_and_its_memory_is_no_more_than_0_7():
    rows = mixtures()
    assert all(row.time <= 1.02 and row.temp <= 0.7 for row in rows)
    assert {row.name.split(" ")[0] for row in rows} == {"mixture_of_experts", "moe"}


@pytest.mark.in_turn
def test_the_usual_spelling_in_jax_is_the_same_mixture():
    layer = nnjax.mixture_of_experts(4, 3, 5, 2)
    params, x = layer.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (6, 4), jnp.float32)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        np.testing.assert_allclose(sorted_by_expert(params, x, 2), layer.apply(params, x), rtol=1e-5, atol=1e-6)
