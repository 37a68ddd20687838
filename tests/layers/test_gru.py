import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import nnjax
from nnjax.cases import jittered


@pytest.mark.in_turn
def test_gru_is_flaxs_cell():
    layer = jittered(nnjax.gru(3, 4))
    params, x = layer.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (2, 6, 3))
    w, u, b = (jnp.split(p, 3, -1) for p in (params.w, params.u, params.b))
    theirs = {f"i{gate}": {"kernel": w[i], "bias": b[i]} for i, gate in enumerate("rzn")}
    theirs |= {f"h{gate}": {"kernel": u[i]} for i, gate in enumerate("rzn")}
    theirs["hn"]["bias"] = params.b_u
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = linen.RNN(linen.GRUCell(4)).apply({"params": {"cell": theirs}}, x)
    np.testing.assert_allclose(layer.apply(params, x), expected, rtol=1e-5, atol=1e-6)


def test_an_update_gate_of_one_keeps_the_state():
    layer = nnjax.gru(3, 4, carry=True)
    params = layer.init(jax.random.key(0))
    params = params._replace(b=params.b.at[4:8].set(100))
    h = jax.random.normal(jax.random.key(1), (2, 4))
    _, last = layer.apply(params, (jnp.ones((2, 9, 3)), h))
    np.testing.assert_allclose(last, h, rtol=1e-6)
