import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.check.mutation.mutants import hunt

EMBEDDING, POSITIONS = nnjax.embedding(5, 3), nnjax.learned_positions(6, 3)
IDS = jnp.array([[0, 4, 4], [1, 4, 0]])


def test_rows_are_picked_and_the_cotangents_of_repeated_ids_add_up():
    params = EMBEDDING.init(jax.random.key(0))
    y, residuals = EMBEDDING.fwd(params, IDS)
    np.testing.assert_array_equal(y, np.asarray(params.table)[np.asarray(IDS)])
    ct_params, ct_ids = EMBEDDING.bwd(residuals, jnp.ones_like(y))
    np.testing.assert_array_equal(ct_params.table, np.outer([2, 1, 0, 0, 3], np.ones(3)))
    assert ct_ids is None


def test_rows_start_with_length_about_one_or_as_told():
    table = nnjax.embedding(500, 64).init(jax.random.key(0)).table
    np.testing.assert_allclose(jnp.square(table).sum(-1).mean(), 1, rtol=0.05)
    zeros = nnjax.embedding(5, 3, init=jax.nn.initializers.zeros).init(jax.random.key(0)).table
    assert not zeros.any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "x"), [(EMBEDDING, IDS), (POSITIONS, jnp.linspace(-1, 1, 24).reshape(2, 4, 3))], ids=["embedding", "positions"]
)
@pytest.mark.in_turn
def test_every_check_passes_and_every_mutant_is_killed(layer, x):
    params = layer.init(jax.random.key(0))
    nnjax.check_layer(layer, params, x, dtypes=["float64", "float32"]).raise_if_failed()
    assert not [o.mutant for o in hunt(layer, params, x) if o.status == "survived"]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32"])
def test_an_id_out_of_range_is_nan_without_gradient_under_jit(dtype):
    layer = nnjax.embedding(100, 3)
    params = layer.init(jax.random.key(0))

    @jax.jit
    def run(params, ids):
        y, residuals = layer.fwd(params, ids)
        return y, layer.bwd(residuals, jnp.ones_like(y))[0].table

    y, ct_table = run(params, jnp.array([3, 120, 3], dtype))
    assert jnp.isnan(y[1]).all()
    assert jnp.isfinite(y[0]).all()
    assert set(np.flatnonzero(ct_table.any(1))) == {3}
    if dtype.startswith("int"):
        y, ct_table = run(params, jnp.array([3, -1, 3], dtype))
        assert jnp.isnan(y[1]).all()
        assert set(np.flatnonzero(ct_table.any(1))) == {3}


@pytest.mark.parametrize("wrong", [5, -1])
def test_an_id_out_of_range_raises_when_its_value_is_known(wrong):
    params = EMBEDDING.init(jax.random.key(0))
    with pytest.raises(ValueError, match=rf"embedding: ids must lie in 0 \.\.\. 4, as the table has 5 rows, got {wrong}; cor"):
        EMBEDDING.fwd(params, IDS.at[0, 1].set(wrong))


def test_positions_are_the_first_rows_and_the_rest_has_no_gradient():
    params = POSITIONS.init(jax.random.key(0))
    x = jnp.zeros((2, 4, 3))
    y, residuals = POSITIONS.fwd(params, x)
    np.testing.assert_array_equal(y[1], params.table[:4])
    ct_params, ct_x = POSITIONS.bwd(residuals, jnp.ones_like(y))
    np.testing.assert_array_equal(ct_params.table, np.outer([2, 2, 2, 2, 0, 0], np.ones(3)))
    np.testing.assert_array_equal(ct_x, np.ones((2, 4, 3)))


@pytest.mark.parametrize(
    ("layer", "x", "error", "message"),
    [
        (EMBEDDING, jnp.ones(3), TypeError, r"embedding: ids must be integers, got float32 \(3,\); convert them"),
        (EMBEDDING, [1, 2], TypeError, r"embedding: ids must be integers, got list"),
        (POSITIONS, jnp.ones((7, 3)), ValueError, r"learned_positions: x must have at most 6 steps, the context, got float32"),
        (POSITIONS, jnp.ones((4, 2)), ValueError, r"learned_positions: x must have shape \(\.\.\., time, 3\), got float32"),
        (POSITIONS, jnp.ones(3), ValueError, r"learned_positions: x must have shape \(\.\.\., time, 3\)"),
        (POSITIONS, jnp.ones((4, 3), int), TypeError, r"learned_positions: x must be real floating point, got int32"),
        (POSITIONS, jnp.ones((4, 3), jnp.float16), TypeError, r"learned_positions: x and table must have the same dtype"),
    ],
)
def test_bad_input_is_refused(layer, x, error, message):
    with pytest.raises(error, match=message):
        layer.apply(layer.init(jax.random.key(0)), x)


def test_bad_params_and_sizes_are_refused():
    with pytest.raises(ValueError, match=r"embedding: table must have shape \(5, 3\), got float32 \(5, 4\)"):
        EMBEDDING.apply(nnjax.EmbeddingParams(jnp.ones((5, 4))), IDS)
    with pytest.raises(TypeError, match=r"learned_positions: params must be EmbeddingParams\(table\), got tuple"):
        POSITIONS.apply((), jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"embedding: vocab must be a positive int, got 0"):
        nnjax.embedding(0, 3)
    with pytest.raises(ValueError, match=r"learned_positions: context must be a positive int, got 2.5"):
        nnjax.learned_positions(2.5, 3)
