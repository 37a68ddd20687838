import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.cases import jittered
from nnjax.models.cells.linear_block import linear_block

ONLY = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.slow
@pytest.mark.in_turn
def test_with_its_state_carried_it_is_itself_in_parts_and_its_gradients_are_right():
    block, carried = (jittered(linear_block(3, 3, carry=carry)) for carry in (False, True))
    params, x = block.init(jax.random.key(0)), normal(1, 2, 7, 3)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, params, carried.init(jax.random.key(0))))
    first, state = carried.apply(params, (x[:, :4], None))
    (second, _), _ = carried.fwd(params, (x[:, 4:], state))
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), block.apply(params, x), rtol=1e-4, atol=1e-5)
    nnjax.check_layer(carried, params, (x, state), **ONLY).raise_if_failed()
    nnjax.check_layer(block, params, x, **ONLY).raise_if_failed()


@pytest.mark.in_turn
def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"linear_block: n_hidden must be n_in, .*got 3 and 4"):
        linear_block(3, 4)
    block = linear_block(3, 3, carry=True)
    params = block.init(jax.random.key(0))
    with pytest.raises(TypeError, match=r"tuple \(x, state\)"):
        block.apply(params, jnp.ones((2, 3)))
    with pytest.raises(TypeError, match="params must be nested"):
        block.apply(params[0], (jnp.ones((2, 3)), None))
