import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.combinators import scan
from nnjax.fast.gpu.scan import AT_A_TIME

BLOCK = nnjax.serial(nnjax.dense(4, 4), nnjax.tanh(), nnjax.dropout(0.25))


def pulled(layer, params, x):
    y, residuals = layer.fwd(params, x, key=jax.random.key(3))
    return y, layer.bwd(residuals, y)


def given(layer):
    return layer.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (5, 4))


@pytest.mark.parametrize(("layers", "remat", "loops"), [(AT_A_TIME, False, 0), (2 * AT_A_TIME, False, 2), (AT_A_TIME, True, 2)])
@pytest.mark.in_turn
def test_a_few_layers_run_in_a_row_only_on_a_gpu(layers, remat, loops):
    layer = nnjax.scan_layers(nnjax.serial(nnjax.dense(4, 4), nnjax.tanh()), layers, remat=remat)

    def found(platform):
        traced = jax.jit(lambda *args: pulled(layer, *args)).trace(*given(layer))
        return traced.lower(lowering_platforms=(platform,)).as_text().count("stablehlo.while")

    assert found("cuda") == loops
    assert found("cpu") == found("tpu") == 2


@pytest.mark.parametrize("layers", [1, 3, AT_A_TIME, AT_A_TIME + 3, 2 * AT_A_TIME])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_layers_in_a_row_give_what_the_scan_gives(monkeypatch, layers):
    layer = nnjax.scan_layers(BLOCK, layers)
    right = pulled(layer, *given(layer))
    monkeypatch.setattr(scan, "by_platform", lambda *args, plain, cuda: cuda(*args))
    found = pulled(layer, *given(layer))
    assert jax.tree.structure(found) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        assert jnp.any(b), "nothing to compare"
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
