import jax
import jax.numpy as jnp
import pytest

import nnjax
from nnjax.cases.mixture import mixtures

CASES = {case.name: case for case in mixtures()}


def test_a_ragged_product_with_the_matrix_of_another_group_is_rejected():
    case = CASES["ragged_dot"]
    params, x, _ = case.make(0)
    assert int(x[2][1]) == 0  # a group without a row
    layer = nnjax.plain(case.layer)

    def wrong(residuals, ct_y):
        ct_params, (ct_x, ct_w, none) = layer.bwd(residuals, ct_y)
        return ct_params, (ct_x, jnp.roll(ct_w, 1, 0), none)

    report = nnjax.check_layer(layer._replace(bwd=wrong), params, x, dtypes=["float64"], transforms=["jit"])
    assert report.failures


@pytest.mark.in_turn
def test_some_experts_are_busier_than_others_and_all_cases_have_losses_but_the_first():
    case = CASES["mixture_of_experts"]
    params, x, _ = case.make(0)
    _, residuals = case.layer.fwd(params, x)
    sizes = residuals[0][5].sizes
    assert int(sizes.sum()) == 2 * x.size // 4
    assert len(set(sizes.tolist())) > 1
    for name in ("mixture_of_experts, gelu, over all, losses", "auxiliary losses", "moe"):
        params, x, key = CASES[name].make(0)
        y = jax.eval_shape(lambda p, x, name=name, key=key: CASES[name].layer.apply(p, x, key=key), params, x)
        assert y[1].shape == ()
