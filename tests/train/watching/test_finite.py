import jax
import jax.numpy as jnp
import pytest

import nnjax
from nnjax.train import first_not_finite

X, LABELS = jnp.ones((4, 3)), jnp.array([0, 1, 0, 1])
LOSS = nnjax.softmax_cross_entropy()


def broken(how):
    """The identity, with a forward or a backward that returns NaN or infinity."""
    tanh = nnjax.tanh()

    def apply(params, x, *, key=None):
        return x * jnp.nan if how == "forward" else x

    def fwd(params, x, *, key=None):
        return apply(params, x), ()

    return tanh._replace(
        name="broken", apply=apply, fwd=fwd, bwd=lambda residuals, ct: ((), ct * (jnp.inf if how == "backward" else 1))
    )


def model(how):
    inner = nnjax.serial(nnjax.relu(), broken(how))
    return nnjax.serial(nnjax.dense(3, 4), nnjax.residual(inner), nnjax.dense(4, 2))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("forward", "the output of 1/residual/1:broken is the first that is not finite"),
        ("backward", "a cotangent of 1/residual/1:broken is the first that is not finite"),
        ("neither", ""),
    ],
)
@pytest.mark.repeats
def test_the_layer_is_named(how, message):
    made = model(how)
    assert first_not_finite(made, LOSS, made.init(jax.random.key(0)), X, LABELS) == message


def test_parameters_and_the_loss_are_named():
    made = model("neither")
    params = made.init(jax.random.key(0))
    bad = (*params[:2], params[2]._replace(w=params[2].w.at[0, 0].set(jnp.inf)))
    assert first_not_finite(made, LOSS, bad, X, LABELS) == "params[2].w is not finite, before the step"
    wrong = LOSS._replace(fwd=lambda params, x, *, key=None: (jnp.asarray(jnp.nan), ()), name="loss")
    assert first_not_finite(made, wrong, params, X, LABELS) == "the loss, loss, is the first that is not finite"
    assert (
        first_not_finite(nnjax.tanh(), LOSS, (), X * jnp.nan, LABELS) == "the output of 0:tanh is the first that is not finite"
    )


@pytest.mark.in_turn
def test_a_serial_within_a_serial_is_entered_on_the_way_back():
    made = nnjax.serial(nnjax.dense(3, 4), nnjax.serial(broken("backward"), nnjax.tanh()), nnjax.dense(4, 2))
    found = first_not_finite(made, LOSS, made.init(jax.random.key(0)), X, LABELS)
    assert found == "a cotangent of 1/0:broken is the first that is not finite"
