import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nnjax
from nnjax.check import strategies

quick = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@quick
@given(strategies.shapes(min_dims=1, max_dims=3, max_side=4))
@pytest.mark.in_turn
def test_shapes_keep_their_limits(shape):
    assert 1 <= len(shape) <= 3
    assert all(0 <= n <= 4 for n in shape)


@quick
@given(st.data())
def test_hard_inputs_hold_ties(data):
    x = data.draw(strategies.arrays(shape=(30, 20)))
    assert x.shape == (30, 20)
    assert x.dtype == np.float32
    assert np.isfinite(x).all()


def test_hard_values_appear():
    seen = set()

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(strategies.arrays(shape=(40,)))
    def collect(x):
        seen.update(np.unique(x[np.isin(x, np.asarray(strategies.HARD, np.float32))]).tolist())

    collect()
    assert {0.0, 0.5, 30.0, -30.0} <= seen


@quick
@given(strategies.ids((5, 6), vocab=9))
def test_ids_repeat_and_stay_in_range(ids):
    assert ids.dtype == np.int32
    assert ids.min() >= 0
    assert ids.max() < 9
    assert len(np.unique(ids)) < ids.size


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(strategies.arrays(shape=(4, 3)))
@pytest.mark.in_turn
def test_layers_pass_on_hard_inputs(x):
    for layer in (nnjax.sigmoid(), nnjax.relu(), nnjax.log_softmax()):
        assert not nnjax.check_layer(layer, (), jnp.asarray(x), dtypes=["float32"], transforms=["jit"]).failures
