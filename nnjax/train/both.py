"""Training with both gradients at every step, from the same parameters, and stopping where they part."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..check.vjp import Difference
from ..data.dataset import Dataset
from .fit import make_accuracy
from .recipe import Recipe
from .run import Epoch, Fit
from .step import TrainState, apply_gradients, epoch_key, init_state, shuffled, step_key


def fit_both(
    recipe: Recipe,
    data: Dataset,
    optimizer: Any,
    epochs: int,
    batch_size: int,
    key: Any,
    first: list[Difference],
    on_epoch: Any,
) -> tuple[Fit, str]:
    """The epochs of `fit`, one step at a time, with both gradients from the same state at each.

    What may differ is the first step's budget, relative to the gradient there or, where it has grown, to the present one.
    Returns early, with a sentence, at the first step that breaks it.
    """
    budget = {d.leaf: (d.budget, d.scale) for d in first}
    names = [d.leaf for d in first]

    @jax.jit
    def step(state: TrainState, x, labels):
        value, grads = recipe.hand(state.params, x, labels, key=step_key(state))
        value_r, grads_r = recipe.reference(state.params, x, labels, key=step_key(state))
        pairs = zip(jax.tree.leaves((value, grads)), jax.tree.leaves((value_r, grads_r)))
        norms = [(jnp.linalg.norm((h - r).ravel()), jnp.linalg.norm(r.ravel())) for h, r in pairs]
        state = apply_gradients(state, grads, optimizer, value, lambda p: recipe.hand(p, x, labels, key=step_key(state))[0])
        return state, value, norms

    accuracy = make_accuracy(recipe.predict)
    state = init_state(recipe.params, optimizer, key)
    x = jnp.asarray(data.train.x)
    labels = jnp.asarray(recipe.encode(data.train.y) if recipe.encode else data.train.y)
    history, broken = [], ""
    for number in range(1, epochs + 1):
        start, losses = time.perf_counter(), []
        for rows in shuffled(epoch_key(state.key, state.step), len(x), batch_size):
            state, value, norms = step(state, x[rows], labels[rows])
            losses.append(value)
            for name, (apart, size) in zip(names, norms):
                relative, scale = budget[name]
                allowed = relative * max(scale, float(size))
                if not float(apart) <= allowed and not broken:
                    broken = f"{name} at step {int(state.step)} differs by {float(apart):.3g}, {allowed:.3g} is allowed"
            if broken:
                break
        seconds = time.perf_counter() - start
        loss = float(np.asarray(jnp.stack(losses)).astype(np.float64).mean())
        scores = [accuracy(state.params, part) for part in (data.validation, data.test)]
        history.append(Epoch(number, loss, scores[0], scores[1], seconds))
        on_epoch(history[-1])
        if broken:
            break
    return Fit(state, tuple(history)), broken
