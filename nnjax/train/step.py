"""One optimisation step, and an epoch of them as one compiled program."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from ..errors import describe, expect_arrays, expect_callable, expect_key, expect_positive
from ..grad import ValueAndGrad, reference_value_and_grad
from ..grad import value_and_grad as by_hand
from ..layers.normalising.running import Running
from ..linear import wide


class TrainState(NamedTuple):
    """All that changes in training. step: int32 (), the number of steps taken; key: the run's key, which stays the same;
    running: the running statistics of batch_norm, () without them. See `make_step`.
    """

    params: Any
    opt_state: Any
    step: jax.Array
    key: jax.Array
    running: Any = ()


class Step(Protocol):
    """step(state, x, labels, weights=None) -> (state, value)."""

    def __call__(self, state: TrainState, x: Any, labels: Any, weights: Any = None, /) -> tuple[TrainState, jax.Array]: ...


Take = Callable[[Any, jax.Array], tuple[Any, Any]]  # (data, row) -> the batch (x, labels) of this row
Steps = Callable[[TrainState, Any, Any], tuple[TrainState, jax.Array]]  # (state, data, rows) or (state, x, labels)


def expect_optimizer(who: str, optimizer: Any) -> None:
    """Raise TypeError unless optimizer is one of optax. A common mistake is one that was not called."""
    if not callable(getattr(optimizer, "init", None)) or not callable(getattr(optimizer, "update", None)):
        name = getattr(optimizer, "__name__", None)
        came, remedy = (
            (name, f"call it, as in optax.{name}(0.001)") if name else (describe(optimizer), "pass e.g. optax.adam(0.001)")
        )
        raise TypeError(f"{who}: optimizer must be one of optax, got {came}; {remedy}.")


def expect_value_and_grad(who: str, f: Any) -> None:
    """Raise TypeError unless f is a function like those that `nnjax.value_and_grad` makes. A common mistake is a Layer."""
    if f is by_hand or f is reference_value_and_grad:
        raise TypeError(
            f"{who}: value_and_grad must be the result of nnjax.{f.__name__}, got that function; call it with model and loss."
        )
    if isinstance(f, type):
        raise TypeError(f"{who}: value_and_grad must be a function, got the class {f.__name__}; make it with "
                        "nnjax.value_and_grad(model, loss).")  # fmt: skip
    expect_callable(who, "value_and_grad", f, "make it with nnjax.value_and_grad(model, loss)")


def expect_state(who: str, state: Any) -> None:
    """Raise TypeError unless state is a TrainState."""
    if not isinstance(state, TrainState):
        raise TypeError(f"{who}: state must be a TrainState, got {describe(state)}; make it with init_state.")


def expect_running(who: str, running: Any) -> None:
    """Raise TypeError unless running is what `running_statistics` makes, or None."""
    if running is not None and not isinstance(running, Running):
        raise TypeError(f"{who}: running must be Running, got {describe(running)}; make it with running_statistics(model).")


def init_state(
    params: Any, optimizer: optax.GradientTransformation, key: jax.Array, running: Running | None = None
) -> TrainState:
    """A state at step 0. The parameters are copied, as `make_epoch` gives their memory to the next state.

    Raises TypeError for parameters that are not arrays, an optimizer that is not one of optax, or an invalid key.
    See `make_step`.
    """
    expect_arrays("init_state", "params", params, "make them with layer.init(key)")
    expect_optimizer("init_state", optimizer)
    expect_key("init_state", key)
    expect_running("init_state", running)
    params = jax.tree.map(lambda p: jnp.array(p, copy=True), params)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
        opt_state = jax.tree.map(lambda s: jnp.array(s, copy=True), optimizer.init(params))  # some keep the parameters
    statistics = () if running is None else running.init(params)
    return TrainState(params, opt_state, jnp.zeros((), jnp.int32), jnp.array(key, copy=True), statistics)


def apply_gradients(
    state: TrainState, grads: Any, optimizer: optax.GradientTransformation, value: Any, value_fn: Callable[[Any], Any]
) -> TrainState:
    """The state after one step of the optimizer along these gradients.

    value and value_fn(params), the objective here and at other parameters, go to optimizers that use them (line searches).
    """
    with jax.numpy_dtype_promotion("standard"):
        update = optax.with_extra_args_support(optimizer).update
        updates, opt_state = update(grads, state.opt_state, state.params, value=value, grad=grads, value_fn=value_fn)
        params = optax.apply_updates(state.params, updates)
    return state._replace(params=params, opt_state=opt_state, step=state.step + 1)


def step_key(state: TrainState) -> jax.Array:
    """The key of the next step, for dropout."""
    return jax.random.fold_in(state.key, state.step)


def make_step(value_and_grad: ValueAndGrad, optimizer: optax.GradientTransformation, running: Running | None = None) -> Step:
    """step(state, x, labels, weights=None) -> (state, value): one step, a pure function for jit or scan.

    value_and_grad is `nnjax.value_and_grad(model, loss)`, its reference, or any function of that signature.
    running: `nnjax.running_statistics(model)`, whose state each step averages with the statistics of its batch; a batch whose
    loss is not finite is left out. `init_state` takes it too.
    Raises TypeError if it is not a function, or if the optimizer is not one of optax.

    >>> import optax
    >>> model, optimizer = nnjax.dense(4, 3), optax.sgd(0.1)
    >>> step = nnjax.train.make_step(nnjax.value_and_grad(model, nnjax.softmax_cross_entropy()), optimizer)
    >>> state = nnjax.train.init_state(model.init(jax.random.key(0)), optimizer, jax.random.key(1))
    >>> state, value = jax.jit(step)(state, jnp.ones((5, 4)), jnp.array([0, 1, 2, 0, 1]))
    >>> int(state.step)
    1
    """
    expect_value_and_grad("make_step", value_and_grad)
    expect_optimizer("make_step", optimizer)
    expect_running("make_step", running)

    def step(state: TrainState, x, labels, weights=None):
        expect_state("step", state)
        for what, tree in (("params", state.params), ("x", x), ("labels", labels), ("weights", weights)):
            expect_arrays("step", what, tree)
        expect_arrays("step", "opt_state", state.opt_state, "make it with init_state(params, optimizer, key)")
        expect_key("step", state.key)

        def objective(params):
            return value_and_grad(params, x, labels, weights=weights, key=step_key(state))

        value, grads = objective(state.params)
        new = apply_gradients(state, grads, optimizer, value, lambda params: objective(params)[0])
        if running is None:
            return new, value
        seen = running.update(state.running, state.params, x, key=step_key(state))
        return new._replace(running=jax.tree.map(partial(jnp.where, jnp.isfinite(value)), seen, state.running)), value

    return step


def shuffled(key: jax.Array, examples: int, batch_size: int) -> jax.Array:
    """(batches, batch_size) indices: a new order of all examples, without those that do not fill a batch."""
    batches = examples // batch_size
    return jax.random.permutation(key, examples)[: batches * batch_size].reshape(batches, batch_size)


def epoch_key(state_key: jax.Array, first_step: Any) -> jax.Array:
    """The key that shuffles the epoch that starts at this step."""
    return jax.random.fold_in(jax.random.fold_in(state_key, 1), first_step)


def examples(data: tuple[jax.Array, jax.Array], rows: jax.Array) -> tuple[Any, Any]:
    """The batch (x, labels) of these examples of data = (x, labels)."""
    how = {"mode": "promise_in_bounds", "unique_indices": True}
    x, labels = data
    return x.at[rows].get(**how), labels.at[rows].get(**how)


def make_steps(step: Step, unroll: int = 4, take: Take = examples) -> Steps:
    """steps(state, data, rows) -> (state, values): a `lax.scan` of step(state, *take(data, row)) over rows; values (n,)."""

    def steps(state: TrainState, data, rows):
        return jax.lax.scan(lambda state, row: step(state, *take(data, row)), state, rows, unroll=unroll)

    return steps


def make_epoch(step: Step, batch_size: int, unroll: int = 4) -> Steps:
    """epoch(state, x, labels) -> (state, mean value): one jitted `lax.scan` over shuffled minibatches.

    The state's buffers are donated: use the state that comes back.
    Raises TypeError if step is not a function, ValueError for fewer examples than a batch.

    >>> import optax
    >>> model, optimizer = nnjax.dense(4, 3), optax.sgd(0.1)
    >>> step = nnjax.train.make_step(nnjax.value_and_grad(model, nnjax.mean_squared_error()), optimizer)
    >>> state = nnjax.train.init_state(model.init(jax.random.key(0)), optimizer, jax.random.key(1))
    >>> state, value = nnjax.train.make_epoch(step, 5)(state, jnp.ones((20, 4)), jnp.zeros((20, 3)))
    >>> int(state.step)
    4
    """
    expect_callable("make_epoch", "step", step, "make it with make_step(value_and_grad, optimizer)")
    batch_size, unroll = expect_positive("make_epoch", batch_size=batch_size, unroll=unroll)
    steps = make_steps(step, unroll)

    def epoch(state: TrainState, x, labels):
        expect_state("epoch", state)
        if jnp.ndim(x) < 1 or jnp.shape(x)[0] < batch_size:
            raise ValueError(
                f"epoch: x must hold at least one batch of {batch_size} examples, got {describe(x)}; pass more, or make the "
                "epoch with a smaller batch_size."
            )
        state, values = steps(state, (x, labels), shuffled(epoch_key(state.key, state.step), x.shape[0], batch_size))
        return state, values.mean(dtype=wide(values))

    return jax.jit(epoch, donate_argnums=0)
