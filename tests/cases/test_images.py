import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.cases.images import images

CASES = {case.name: case for case in images()}


@pytest.mark.parametrize("kind", ["conv", "conv_transpose", "max_pool", "avg_pool"])
def test_there_are_cases_of_every_number_of_axes(kind):
    axes = {case.make(0, (2,))[1].ndim - 2 for name, case in CASES.items() if name.split(",")[0] == kind}
    assert axes == {1, 2, 3}


def test_padding_that_wins_is_rejected_in_the_padded_case():
    case = CASES["max_pool, padded"]
    params, x, _ = case.make(0)
    assert float(x.min()) < 0

    def wrong(params, x, *, key=None):  # as if zeros lay around
        y, residuals = case.layer.fwd(params, x)
        return jnp.maximum(y, jnp.zeros_like(y)), residuals

    assert nnjax.check_layer(case.layer._replace(fwd=wrong), params, x, dtypes=["float32"], transforms=["jit"]).failures


@pytest.mark.in_turn
def test_the_projection_of_the_case_changes_the_shape():
    case = CASES["residual with a projection"]
    params, x, _ = case.make(0, (3,))
    assert case.layer.apply(params, x).shape == (3, 2, 2, 3)
    assert np.shape(x) == (3, 4, 4, 2)
