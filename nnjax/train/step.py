"""One optimisation step, and an epoch of them as one compiled program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..grad import ValueAndGrad


class TrainState(NamedTuple):
    """All that changes in training. step: int32 (), the number of steps taken; key: the run's key, never used up."""

    params: Any
    opt_state: Any
    step: jax.Array
    key: jax.Array


def init_state(params: Any, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
    """A state at step 0. The parameters are copied, as `make_epoch` gives their memory to the next state."""
    params = jax.tree.map(lambda p: jnp.array(p, copy=True), params)
    with jax.numpy_dtype_promotion("standard"):  # optax itself mixes dtypes
        opt_state = jax.tree.map(lambda s: jnp.array(s, copy=True), optimizer.init(params))  # some keep the parameters
    return TrainState(params, opt_state, jnp.zeros((), jnp.int32), jnp.array(key, copy=True))


def apply_gradients(
    state: TrainState, grads: Any, optimizer: optax.GradientTransformation, value: Any, value_fn: Callable
) -> TrainState:
    """The state after one step of the optimizer along these gradients.

    value and value_fn(params), the objective here and elsewhere, go to optimizers that ask for them (line searches).
    """
    with jax.numpy_dtype_promotion("standard"):
        update = optax.with_extra_args_support(optimizer).update
        updates, opt_state = update(grads, state.opt_state, state.params, value=value, grad=grads, value_fn=value_fn)
        params = optax.apply_updates(state.params, updates)
    return TrainState(params, opt_state, state.step + 1, state.key)


def step_key(state: TrainState) -> jax.Array:
    """The key of the step that comes next, for dropout."""
    return jax.random.fold_in(state.key, state.step)


def make_step(value_and_grad: ValueAndGrad, optimizer: optax.GradientTransformation) -> Callable:
    """step(state, x, labels, weights=None) -> (state, value): one step, a pure function to be jitted or scanned.

    value_and_grad is `nnjax.value_and_grad(model, loss)`, its reference, or any function of that signature.
    """

    def step(state: TrainState, x, labels, weights=None):
        def objective(params):
            return value_and_grad(params, x, labels, weights=weights, key=step_key(state))

        value, grads = objective(state.params)
        return apply_gradients(state, grads, optimizer, value, lambda params: objective(params)[0]), value

    return step


def shuffled(key: jax.Array, examples: int, batch_size: int) -> jax.Array:
    """(batches, batch_size) indices: a fresh order of all examples, those that fill no batch left out."""
    batches = examples // batch_size
    return jax.random.permutation(key, examples)[: batches * batch_size].reshape(batches, batch_size)


def epoch_key(state_key: jax.Array, first_step: Any) -> jax.Array:
    """What shuffles the epoch that begins at this step."""
    return jax.random.fold_in(jax.random.fold_in(state_key, 1), first_step)


def examples(data: tuple, rows: jax.Array) -> tuple[Any, Any]:
    """The batch (x, labels) of these examples of data = (x, labels)."""
    how = {"mode": "promise_in_bounds", "unique_indices": True}
    x, labels = data
    return x.at[rows].get(**how), labels.at[rows].get(**how)


def make_steps(step: Callable, unroll: int = 4, take: Callable = examples) -> Callable:
    """steps(state, data, rows) -> (state, values): a `lax.scan` of step(state, *take(data, row)) over rows; values (n,)."""

    def steps(state: TrainState, data, rows):
        return jax.lax.scan(lambda state, row: step(state, *take(data, row)), state, rows, unroll=unroll)

    return steps


def make_epoch(step: Callable, batch_size: int, unroll: int = 4) -> Callable:
    """epoch(state, x, labels) -> (state, mean value): one jitted `lax.scan` over shuffled minibatches.

    The state's buffers are donated: use the one that comes back.
    """
    steps = make_steps(step, unroll)

    def epoch(state: TrainState, x, labels):
        state, values = steps(state, (x, labels), shuffled(epoch_key(state.key, state.step), x.shape[0], batch_size))
        return state, values.mean()

    return jax.jit(epoch, donate_argnums=0)
