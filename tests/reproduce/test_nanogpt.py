import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.data.text import make_text
from nnjax.reproduce.nanogpt import CPU, Configuration, make_nanogpt_optimizer, train_nanogpt

TEXT = make_text("words", "the cat sat on the mat and the rat sat on the cat. " * 40)
SMALL = Configuration(layers=1, heads=2, width=16, context=12, batch_size=4, steps=40, every=20, warmup=5)


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_small_one_trains_and_writes():
    seen = []
    done = train_nanogpt(TEXT, 0, SMALL, seen.append)
    assert len(seen) == 2
    assert done.validation_loss == seen[-1].measured["validation_loss"] < seen[0].measured["validation_loss"]
    assert len(done.sample) == 12
    assert set(done.sample) <= set(TEXT.vocabulary)
    assert done.seconds > 0


def test_sizes_and_steps_are_the_published_ones():
    assert CPU == Configuration(4, 4, 128, 64, 12, 2000, 250, 2e-3, 100, 0.99, 0.1, 1.0)


@pytest.mark.in_turn
def test_weights_decay_and_biases_do_not():
    params = {"w": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)}
    optimizer = make_nanogpt_optimizer(CPU._replace(warmup=1, learning_rate=0.1))
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
        zeros = jax.tree.map(np.zeros_like, params)
        _, state = optimizer.update(zeros, state, params)
        updates, _ = optimizer.update(zeros, state, params)
    assert float(updates["w"][0, 0]) == pytest.approx(-0.1 * 0.1, rel=1e-3)
    assert not np.asarray(updates["b"]).any()


@pytest.mark.slow
@pytest.mark.in_turn
def test_stacked_biases_and_norms_do_not_decay():
    params = jax.tree.map(jnp.ones_like, nnjax.gpt(5, 3, 2, 1, 2).init(jax.random.key(0)))
    optimizer, zeros = make_nanogpt_optimizer(CPU._replace(warmup=1, learning_rate=0.1)), jax.tree.map(jnp.zeros_like, params)
    with jax.numpy_dtype_promotion("standard"):
        _, state = optimizer.update(zeros, optimizer.init(params), params)
        updates, _ = optimizer.update(zeros, state, params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        assert bool(update.any()) == (path[-1].name in ("w", "table")), path
