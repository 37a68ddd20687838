import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax


@pytest.mark.parametrize("remat", [False, True])
def test_scan_layers_equals_the_same_layers_in_a_row(remat):
    block = nnjax.serial(nnjax.dense(4, 4), nnjax.tanh())
    scanned = nnjax.scan_layers(block, 3, remat=remat)
    params = scanned.init(jax.random.key(0))
    rows = tuple(jax.tree.map(lambda p, i=i: p[i], params) for i in range(3))
    x = jax.random.normal(jax.random.key(1), (5, 4))
    plain = nnjax.serial(block, block, block)
    np.testing.assert_allclose(scanned.apply(params, x), plain.apply(rows, x), rtol=1e-5)
    ct_s, ct_x_s = scanned.bwd(scanned.fwd(params, x)[1], x)
    ct_p, ct_x_p = plain.bwd(plain.fwd(rows, x)[1], x)
    np.testing.assert_allclose(ct_x_s, ct_x_p, rtol=1e-5, atol=1e-6)
    for i in range(3):
        np.testing.assert_allclose(ct_s[0].w[i], ct_p[i][0].w, rtol=1e-5, atol=1e-6)


def test_scan_layers_keeps_no_second_copy_of_its_parameters():
    block = nnjax.serial(nnjax.dense(4, 4), nnjax.tanh())
    scanned = nnjax.scan_layers(block, 3)
    params, x = scanned.init(jax.random.key(0)), jnp.ones((2, 4))
    for run in (scanned.fwd, jax.jit(scanned.fwd)):
        _, (kept_params, kept) = run(params, x)
        assert jax.tree.map(jnp.shape, kept_params) == jax.tree.map(jnp.shape, params)
        assert [r.shape for r in jax.tree.leaves(kept)] == [(3, 2, 4), (3, 2, 4)]  # the input of dense and the output of tanh

    wide = nnjax.scan_layers(nnjax.serial(nnjax.dense(256, 256), nnjax.tanh()), 8)

    def step(params, x):
        y, residuals = wide.fwd(params, x)
        return wide.bwd(residuals, y)

    shapes = jax.eval_shape(wide.init, jax.random.key(0))
    memory = jax.jit(step).lower(shapes, jax.ShapeDtypeStruct((2, 256), jnp.float32)).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 8 * 256 * 256 * 4 / 2


def test_a_block_that_changes_the_shape_and_params_that_are_not_stacked_are_refused():
    scanned = nnjax.scan_layers(nnjax.dense(4, 3), 2)
    with pytest.raises(ValueError, match=r"scan_layers\(dense\(4, 3\)\): the block must keep the shape and dtype of x"):
        scanned.fwd(scanned.init(jax.random.key(0)), jnp.ones(4))
    with pytest.raises(ValueError, match=r"stacked along a first axis of length 2, got \(4, 4\), \(4,\)"):
        scanned.apply(nnjax.dense(4, 4).init(jax.random.key(0)), jnp.ones(4))
    with pytest.raises(ValueError, match=r"scan_layers: n must be a positive int, got 0"):
        nnjax.scan_layers(nnjax.relu(), 0)


@pytest.mark.in_turn
def test_loops_within_loops_give_each_its_own_parameters_back():
    inner = nnjax.scan_layers(nnjax.serial(nnjax.dense(3, 3), nnjax.tanh()), 2)
    for layer in (
        nnjax.scan_layers(inner, 3),
        nnjax.scan_layers(nnjax.in_chunks(nnjax.serial(inner, nnjax.dense(3, 3)), 2, axes=1), 3),
    ):
        params, x = layer.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (4, 3))
        nnjax.check_layer(layer, params, x, dtypes=("float32",), transforms=("jit",), witnesses=()).raise_if_failed()
