"""Where the arrays of a run lie on more devices than one; and back in the layout of one, to be saved and looked at."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ..grad import ValueAndGrad
from .step import TrainState, init_state


def _same(tree: Any) -> Any:
    return tree


class Placement(NamedTuple):
    """params: a sharding for each parameter; batch: that of the examples of a batch, along their first axis.

    cut(tree): parameters, or anything made of them, from the layout of one device to that of these; join(tree): back.
    """

    params: Any
    batch: NamedSharding
    cut: Callable[[Any], Any] = _same
    join: Callable[[Any], Any] = _same

    @property
    def whole(self) -> NamedSharding:
        """Of what every device has all of."""
        return NamedSharding(self.batch.mesh, P())

    def of(self, state: TrainState) -> TrainState:
        """A sharding for each leaf of a state: what the optimizer keeps of each parameter lies with it, all else everywhere."""
        like = jax.tree.structure(state.params)

        def lies(part):
            if jax.tree.structure(part) != like:
                return jax.tree.map(lambda _: self.whole, part)
            return jax.tree.map(lambda s, a, p: s if a.shape == p.shape else self.whole, self.params, part, state.params)

        return jax.tree.map(lies, state, is_leaf=lambda part: jax.tree.structure(part) == like)

    def steps(self, local: np.ndarray, batch_size: int) -> jax.Array:
        """(steps, batch, ...) on the devices, from what `own` names of each batch."""
        sharding = NamedSharding(self.batch.mesh, P(None, *self.batch.spec))
        return jax.make_array_from_process_local_data(sharding, local, (local.shape[0], batch_size, *local.shape[2:]))

    def own(self, batch_size: int) -> np.ndarray:
        """Which examples of a batch lie on devices of this process."""
        slices = self.batch.addressable_devices_indices_map((batch_size,)).values()
        found: set[int] = set()
        for cut in slices:
            found.update(range(batch_size)[cut[0] if cut else slice(None)])
        return np.array(sorted(found))


def expect_batch(who: str, placement: Placement | None, batch_size: int) -> None:
    """Raise ValueError for a batch that the devices cannot share evenly."""
    if placement is None:
        return
    (entry,) = placement.batch.spec or (None,)
    names = entry if isinstance(entry, tuple) else (entry,) if entry else ()
    sizes = {name: placement.batch.mesh.shape[name] for name in names}
    n = math.prod(sizes.values())
    if batch_size % n:
        axes = ", ".join(f"{name}={size}" for name, size in sizes.items())
        raise ValueError(
            f"{who}: the batch size must be a multiple of {n}, the devices that share a batch ({axes}), got {batch_size}; "
            "change either of them."
        )


def placed_state(
    params: Any, optimizer: optax.GradientTransformation, key: jax.Array, placement: Placement | None
) -> TrainState:
    """`init_state` where it belongs; params: in the layout of one device."""
    if placement is None:
        return init_state(params, optimizer, key)

    def made(params, key):
        return init_state(placement.cut(params), optimizer, key)

    return jax.jit(made, out_shardings=placement.of(jax.eval_shape(made, params, key)))(params, key)


def put(state: TrainState, placement: Placement | None) -> TrainState:
    """A state in the layout of one device, where it belongs."""
    if placement is None:
        return state
    return jax.jit(placement.cut, out_shardings=placement.of(jax.eval_shape(placement.cut, state)))(state)


def joined(tree: Any, placement: Placement | None) -> Any:
    """Back in the layout of one device, wherever it lies."""
    return tree if placement is None else placement.join(tree)


def staying(step: Callable[..., Any], placement: Placement | None) -> Callable[..., Any]:
    """The step, from a state to one that lies where that one did."""
    if placement is None:
        return step

    def stays(state, x, labels):
        state, value = step(state, x, labels)
        return jax.lax.with_sharding_constraint((state, value), (placement.of(state), placement.whole))

    return stays


def predicting(predict: Callable[..., Any], placement: Placement | None) -> Callable[..., Any]:
    """predict(params, x) of parameters that lie on the devices, which share the examples."""
    if placement is None:
        return predict
    return lambda params, x: predict(placement.join(params), jax.lax.with_sharding_constraint(x, placement.batch))


def on_host(tree: Any, placement: Placement | None) -> Any:
    """Parameters in the layout of one device, and on one: all of them, in every process."""
    if placement is None:
        return tree
    return jax.tree.map(jnp.asarray, jax.device_get(jax.jit(placement.join, out_shardings=placement.whole)(tree)))


def as_on_one_device(f: ValueAndGrad, placement: Placement | None) -> ValueAndGrad:
    """f as a function of parameters in the layout of one device, whose gradients come back in it, whole."""
    if placement is None:
        return f

    def g(params, *batch, **options):
        value, grads = f(placement.cut(params), *batch, **options)
        return jax.lax.with_sharding_constraint((value, placement.join(grads)), placement.whole)

    return g


def everywhere(x: Any, placement: Placement | None) -> jax.Array:
    """An array that all devices have all of."""
    if placement is None:
        return jnp.asarray(x)
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, placement.whole, lambda index: x[index])


def feeding(placement: Placement | None) -> Callable[[np.ndarray], Any]:
    """feed(rows) -> rows (steps, batch) on the devices."""
    if placement is None:
        return jnp.asarray
    return lambda rows: placement.steps(rows[:, placement.own(rows.shape[1])], rows.shape[1])
