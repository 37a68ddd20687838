import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import nnjax
from nnjax import LSTMState
from nnjax.cases import jittered


@pytest.mark.in_turn
def test_lstm_is_flaxs_cell():
    layer = jittered(nnjax.lstm(3, 4, carry=True))
    params, x = layer.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (2, 6, 3))
    state = LSTMState(*jax.random.normal(jax.random.key(2), (2, 2, 4)))
    w, u, b = (jnp.split(p, 4, -1) for p in (params.w, params.u, params.b))
    theirs = {f"i{gate}": {"kernel": w[i]} for i, gate in enumerate("ifgo")}
    theirs |= {f"h{gate}": {"kernel": u[i], "bias": b[i]} for i, gate in enumerate("ifgo")}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        (c, h), expected = linen.RNN(linen.LSTMCell(4), return_carry=True).apply(
            {"params": {"cell": theirs}}, x, initial_carry=(state.c, state.h)
        )
    y, last = layer.apply(params, (x, state))
    for found, wanted in ((y, expected), (last.h, h), (last.c, c)):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_forget_gate_starts_open():
    b = nnjax.lstm(3, 2).init(jax.random.key(0)).b
    np.testing.assert_array_equal(b, [0, 0, 1, 1, 0, 0, 0, 0])


def test_a_state_of_another_kind_is_refused():
    layer = nnjax.lstm(3, 4, carry=True)
    with pytest.raises(TypeError, match=r"lstm: state must be LSTMState\(h, c\), got float32 \(2, 4\); pass None"):
        layer.apply(layer.init(jax.random.key(0)), (jnp.ones((2, 5, 3)), jnp.ones((2, 4))))
