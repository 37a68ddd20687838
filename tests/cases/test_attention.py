import jax
import jax.numpy as jnp
import pytest

import nnjax
from nnjax.cases.attention import attentions
from nnjax.layers.attending import scored


def of(name):
    return next(case for case in attentions() if case.name == name)


@pytest.mark.in_turn
def test_a_bias_whose_copies_are_not_summed_is_rejected():
    case = of("attention, scored")
    params, x, key = case.make(0, (3,))
    plain = nnjax.plain(case.layer)

    def wrong(residuals, ct_y):
        ct_params, (*cts, ct_bias, ct_slopes, none) = plain.bwd(residuals, ct_y)
        return ct_params, (*cts, ct_bias / 3, ct_slopes, none)  # the mean over the batch in place of the sum

    report = nnjax.check_layer(plain._replace(bwd=wrong), params, x, key=key, dtypes=["float64"], transforms=["jit"])
    assert {row.leaf for row in report.failures} and not report.ok  # noqa: PT018


@pytest.mark.in_turn
def test_what_is_hidden_holds_nan_in_the_case_of_that_name():
    case = of("attention, nobody looks at NaN")
    params, x, _ = case.make(0, (7,))
    y, residuals = case.layer.fwd(params, x)
    assert jnp.isfinite(y).all()
    assert any(jnp.isnan(leaf).any() for leaf in jax.tree.leaves(residuals) if jnp.issubdtype(leaf.dtype, jnp.floating))


def test_the_scored_case_uses_every_option():
    from nnjax.cases.attention import HOW

    assert None not in HOW[:3]
    assert HOW.rate > 0
    assert HOW.window != scored.Scoring(1.0).window
