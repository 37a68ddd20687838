import jax
import jax.numpy as jnp
import pytest

import nnjax


def _linear_embedding(n_in, n_out):
    """x W without bias, and W.T as the head: the smallest tied pair."""
    embed = nnjax.dense(n_in, n_out, bias=False)
    head = nnjax.dense(n_in, n_out, bias=False)

    def flip(p):
        return p._replace(w=p.w.T)

    def bwd(residuals, ct_y):
        ct_p, ct_x = head.bwd(residuals, ct_y)
        return flip(ct_p), ct_x

    return embed, nnjax.Layer(
        "head",
        head.init,
        lambda p, x, *, key=None: head.apply(flip(p), x),
        lambda p, x, *, key=None: head.fwd(flip(p), x),
        bwd,
    )


@pytest.mark.in_turn
def test_tied_adds_the_two_cotangents_of_its_table():
    embed, head = _linear_embedding(5, 3)
    model = nnjax.tied(embed, nnjax.serial(nnjax.dense(3, 3), nnjax.tanh()), head)
    params = model.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (4, 5))
    report = nnjax.check_layer(model, params, x, transforms=["jit"], witnesses=()).raise_if_failed()
    assert "params.table.w" in {row.leaf for row in report.rows}

    def forgetful(residuals, ct_y):
        ct_params, ct_x = model.bwd(residuals, ct_y)
        ct_in, _ = embed.bwd(residuals[0], model.parts[1].bwd(residuals[1], head.bwd(residuals[2], ct_y)[1])[1])
        return ct_params._replace(table=ct_in), ct_x

    wrong = nnjax.check_layer(model._replace(bwd=forgetful), params, x, transforms=["jit"], witnesses=())
    assert {row.leaf for row in wrong.failures} == {"params.table.w"}


def test_params_that_are_not_of_a_tied_pair_are_refused():
    embed, head = _linear_embedding(5, 3)
    with pytest.raises(TypeError, match=r"tied: params must be TiedParams\(table, body\), got tuple"):
        nnjax.tied(embed, nnjax.tanh(), head).apply((), jnp.ones(5))
