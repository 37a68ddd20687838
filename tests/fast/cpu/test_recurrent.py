import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.fast.cpu.windows import WINDOW


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("steps", [1, WINDOW, WINDOW + 3])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_windows_give_and_keep_what_one_scan_does(cell, steps):
    layer = getattr(nnjax, cell)(3, 2)
    params = layer.init(jax.random.key(0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, steps, 3)), jnp.float32)
    found, expected = (pair.fwd(params, x) for pair in (layer, nnjax.plain(layer)))
    ct = jnp.asarray(np.random.default_rng(1).standard_normal((2, steps, 2)), jnp.float32)
    gradients = layer.bwd(found[1], ct), nnjax.plain(layer).bwd(found[1], ct)
    for a, b in zip(jax.tree.leaves((found, gradients[0])), jax.tree.leaves((expected, gradients[1])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
