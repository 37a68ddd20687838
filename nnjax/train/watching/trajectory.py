"""Two runs from the same start, one by each gradient: how far they drift apart, step by step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...errors import describe, expect_array, expect_arrays, expect_key, expect_positive
from ...grad import ValueAndGrad
from ..step import epoch_key, expect_optimizer, expect_value_and_grad, init_state, make_step, shuffled


class Drift(NamedTuple):
    """A number for each step.  loss: by hand; loss_apart: |hand - jax| / |jax| of the loss; params_apart: the same for all
    parameters, in the 2-norm."""

    loss: np.ndarray
    loss_apart: np.ndarray
    params_apart: np.ndarray


def trajectory(
    hand: ValueAndGrad, reference: ValueAndGrad, params: Any, x: jax.Array, labels: jax.Array, *,
    optimizer: optax.GradientTransformation, batch_size: int, steps: int, key: jax.Array,
) -> Drift:  # fmt: skip
    """Run `steps` steps twice, on the batches that `fit` would take, each run from its own parameters."""
    steps, batch_size = expect_positive("trajectory", steps=steps, batch_size=batch_size)
    expect_value_and_grad("trajectory", hand)
    expect_value_and_grad("trajectory", reference)
    expect_optimizer("trajectory", optimizer)
    expect_arrays("trajectory", "params", params, "make them with model.init(key)")
    expect_key("trajectory", key)
    for name, a in (("x", x), ("labels", labels)):
        expect_array("trajectory", name, a)
        if not a.ndim or len(a) != len(x) or len(x) < batch_size:
            raise ValueError(f"trajectory: {name} must have a row for each example, at least {batch_size} of them, got x "
                             f"{describe(x)}, labels {describe(labels)}; pass the same number of both.")  # fmt: skip
    x, labels = jnp.asarray(x), jnp.asarray(labels)
    by_hand, by_jax = make_step(hand, optimizer), make_step(reference, optimizer)

    def apart(a, b):
        pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b)))
        difference = sum((jnp.sum((u - v) ** 2) for u, v in pairs), start=jnp.zeros(()))
        return jnp.sqrt(difference / sum((jnp.sum(v**2) for _, v in pairs), start=jnp.zeros(())))

    def one(states, row):
        ours, theirs = states
        ours, value = by_hand(ours, x[row], labels[row])
        theirs, value_j = by_jax(theirs, x[row], labels[row])
        return (ours, theirs), (value, jnp.abs(value - value_j) / jnp.abs(value_j), apart(ours.params, theirs.params))

    run = jax.jit(lambda states, rows: jax.lax.scan(one, states, rows))
    states = tuple(init_state(params, optimizer, key) for _ in range(2))
    per_epoch, found = len(x) // batch_size, []
    for first in range(0, steps, per_epoch):
        rows = shuffled(epoch_key(key, first), len(x), batch_size)[: steps - first].astype(jnp.int32)
        states, drift = run(states, rows)
        found.append(drift)
    return Drift(*(np.concatenate([np.asarray(part) for part in parts]) for parts in zip(*found)))
