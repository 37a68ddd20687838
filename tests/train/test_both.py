from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnjax.check.vjp import Difference
from nnjax.train import Checkpoints, fit, load
from nnjax.train.both import held_together
from nnjax.train.loop import GradientsApart
from nnjax.train.recipe import make_recipe
from nnjax.train.step import epoch_key, shuffled

DIGITS = load("digits")
NAMES = ("value", *(f"params[{i}].{p}" for i in (0, 2) for p in "wb"))
RECIPE = make_recipe("mlp", DIGITS, hidden=(5,), key=jax.random.key(0))


def run(budget=1e-3, epochs=2, hand=RECIPE.hand, where=None, **how):
    first = [Difference(name, 0.0, budget, 1.0) for name in NAMES]
    both = held_together(hand, RECIPE.reference, first, where)
    return fit(
        both.value_and_grad, RECIPE.params, DIGITS, predict=RECIPE.predict, optimizer=optax.adam(0.01), epochs=epochs,
        batch_size=32, key=jax.random.key(1), where=both.where, **how,
    )  # fmt: skip


def turned(at, factor):
    """The gradient by hand, wrong in one leaf where the labels of the batch have this sum."""

    def hand(params, x, labels, **rest):
        value, grads = RECIPE.hand(params, x, labels, **rest)
        scale = jnp.where(labels.sum() == at, jnp.float32(factor), jnp.float32(1))
        return value, (*grads[:2], grads[2]._replace(b=grads[2].b * scale))

    return hand


@pytest.mark.slow
@pytest.mark.in_turn
def test_it_equals_the_run_by_hand_also_if_it_is_stopped_and_resumed(tmp_path):
    expected = fit(
        RECIPE.hand, RECIPE.params, DIGITS, predict=RECIPE.predict, optimizer=optax.adam(0.01), epochs=2, batch_size=32,
        key=jax.random.key(1),
    )  # fmt: skip
    done = run(checkpoints=Checkpoints(tmp_path / "whole"))
    run(epochs=1, checkpoints=Checkpoints(tmp_path / "stopped"))
    resumed = run(checkpoints=Checkpoints(tmp_path / "stopped", resume=True))
    assert int(done.state.step) == 78
    jax.tree.map(np.testing.assert_array_equal, resumed.state.params, done.state.params)
    near = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)  # another program, with other rounding
    jax.tree.map(near, done.state.params, expected.state.params)


@pytest.mark.in_turn
def test_it_stops_where_the_gradients_differ_and_says_where():
    with pytest.raises(GradientsApart, match=r"at step 1 value differs by .*, .*-.* is allowed"):
        run(-1.0)
    rows = shuffled(epoch_key(jax.random.key(1), 0), len(DIGITS.train.y), 32)
    sums = np.asarray(DIGITS.train.y)[np.asarray(rows)].sum(1)
    step = next(i for i in range(20, len(sums)) if sums[i] not in sums[:i]) + 1
    with pytest.raises(GradientsApart, match=rf"at step {step} params\[2\]\.b differs by"):
        run(hand=turned(sums[step - 1], 1.1))


@pytest.mark.in_turn
def test_a_loss_that_is_itself_not_finite_is_not_a_difference():
    def hand(params, x, labels, **rest):
        value, grads = RECIPE.hand(params, x, labels, **rest)
        return value * jnp.inf, grads

    with pytest.raises(FloatingPointError, match="at step 1: in the third layer"):
        run(hand=hand, where=lambda *batch: "in the third layer")
