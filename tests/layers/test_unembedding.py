import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax

PARAMS = nnjax.embedding(5, 3).init(jax.random.key(0))
H = jax.random.normal(jax.random.key(1), (2, 4, 3))


def test_every_id_is_scored_by_the_product_with_its_row():
    y = nnjax.unembedding(5, 3).apply(PARAMS, H)
    np.testing.assert_allclose(y[1, 2], np.asarray(PARAMS.table) @ np.asarray(H[1, 2]), rtol=1e-5)
    same_h, table = nnjax.unembedding(5, 3, fused=True).apply(PARAMS, H)
    np.testing.assert_array_equal(same_h @ table.T, y)


def test_a_head_that_scores_with_the_wrong_table_is_found():
    layer = nnjax.unembedding(3, 3)
    wrong = layer._replace(bwd=lambda r, ct: (layer.bwd(r, ct)[0], ct @ r[0].table.T))
    params = nnjax.embedding(3, 3).init(jax.random.key(0))
    report = nnjax.check_layer(wrong, params, H, dtypes=["float32"], transforms=["jit"], witnesses=())
    assert {row.leaf: row.diagnosis.kind for row in report.failures if row.diagnosis} == {"x": "transposed"}


@pytest.mark.parametrize("fused", [False, True])
def test_bad_input_is_refused(fused):
    layer = nnjax.unembedding(5, 3, fused=fused)
    with pytest.raises(ValueError, match=r"unembedding: h must have 3 features in its last axis.*got float32 \(2, 4\)"):
        layer.fwd(PARAMS, jnp.ones((2, 4)))
    with pytest.raises(TypeError, match=r"unembedding: h and table must have the same dtype"):
        layer.apply(PARAMS, H.astype(jnp.bfloat16))
    with pytest.raises(TypeError, match=r"unembedding: params must be EmbeddingParams\(table\), got tuple"):
        layer.apply((), H)
