import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.layer import add_cotangents


def test_serial_runs_its_backward_in_reverse():
    order = []

    def spy(name):
        layer = nnjax.tanh()
        return layer._replace(
            fwd=lambda p, x, *, key=None: (order.append(f"fwd {name}"), layer.fwd(p, x, key=key))[1],
            bwd=lambda r, ct: (order.append(f"bwd {name}"), layer.bwd(r, ct))[1],
        )

    model = nnjax.serial(spy("a"), spy("b"), spy("c"))
    y, residuals = model.fwd(model.init(jax.random.key(0)), jnp.ones(3))
    model.bwd(residuals, y)
    assert order == ["fwd a", "fwd b", "fwd c", "bwd c", "bwd b", "bwd a"]


def test_a_copy_is_transposed_by_a_sum():
    model = nnjax.parallel(nnjax.tanh(), nnjax.tanh())
    x = jnp.array([0.3, -0.2])
    _, residuals = model.fwd(((), ()), x)
    _, one = nnjax.tanh().bwd(nnjax.tanh().fwd((), x)[1], jnp.ones(2))
    np.testing.assert_allclose(model.bwd(residuals, (jnp.ones(2), jnp.ones(2)))[1], 2 * one)


def test_none_adds_nothing():
    a = jnp.ones(2)
    assert add_cotangents(None, a) is a
    assert add_cotangents(a, None) is a
    assert add_cotangents(None, None) is None
    assert add_cotangents((a, None), (a, None))[1] is None


def test_recompute_keeps_only_the_input_and_runs_fwd_again_with_the_same_key():
    layer = nnjax.serial(nnjax.dense(4, 4), nnjax.dropout(0.5), nnjax.tanh())
    params, x, key = layer.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (3, 4)), jax.random.key(2)
    y, residuals = layer.fwd(params, x, key=key)
    again, kept = nnjax.recompute(layer).fwd(params, x, key=key)
    np.testing.assert_array_equal(y, again)
    assert kept == (params, x, key)
    jax.tree.map(np.testing.assert_array_equal, layer.bwd(residuals, x), nnjax.recompute(layer).bwd(kept, x))
    with pytest.raises(TypeError, match="recompute: expected a Layer, got tanh"):
        nnjax.recompute(nnjax.tanh)


@pytest.mark.in_turn
def test_the_same_key_gives_the_same_mask_in_apply_and_fwd():
    drop = nnjax.dropout(0.5)
    scanned = nnjax.scan_layers(nnjax.serial(drop, nnjax.dense(8, 8)), 2)
    for model in (nnjax.serial(drop, drop), nnjax.residual(drop), nnjax.parallel(drop, drop), scanned):
        params, x = model.init(jax.random.key(0)), jnp.ones((4, 8))
        for seed in range(3):
            applied = model.apply(params, x, key=jax.random.key(seed))
            jax.tree.map(np.testing.assert_array_equal, applied, model.fwd(params, x, key=jax.random.key(seed))[0])
    first, second = nnjax.parallel(drop, drop).apply(((), ()), jnp.ones(1000), key=jax.random.key(0))
    assert (first != second).any()


def test_a_factory_that_was_not_called_is_named():
    with pytest.raises(TypeError, match=r"serial of 2: expected a Layer, got relu; call the factory, as in relu\(\.\.\.\)"):
        nnjax.serial(nnjax.dense(4, 3), nnjax.relu)
    with pytest.raises(TypeError, match=r"residual: expected a Layer, got int; make one with a factory"):
        nnjax.residual(3)


def test_params_that_do_not_fit_the_parts_are_refused():
    model = nnjax.serial(nnjax.dense(4, 3), nnjax.relu())
    with pytest.raises(
        TypeError, match=r"serial of 2: params must be a tuple with one entry for each of its 2 parts, got 1 entries"
    ):
        model.apply(((),), jnp.ones(4))
    with pytest.raises(TypeError, match=r"parallel of 1: params must be a tuple.*got dict"):
        nnjax.parallel(nnjax.relu()).apply({}, jnp.ones(4))
    with pytest.raises(ValueError, match=r"parallel: expected at least one layer, got none"):
        nnjax.parallel()
