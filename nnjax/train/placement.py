"""Where the arrays of a run lie: on one device or several; and how to bring them back to the layout of one, to save them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ..grad import ValueAndGrad
from .step import Step, TrainState, init_state


class Placement:
    """On one device: there is nothing to do; `OnMesh` is for several. whole: the sharding of arrays that all devices have."""

    @property
    def whole(self) -> NamedSharding | None:
        return None

    def expect_batch(self, who: str, batch_size: int) -> None:
        """Raise ValueError for a batch size that the devices cannot share evenly."""

    def state(self, params: Any, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
        """`init_state`, placed on the devices; params: in the layout of one device."""
        return init_state(params, optimizer, key)

    def put(self, state: TrainState) -> TrainState:
        """A state in the layout of one device, placed on the devices."""
        return state

    def join(self, tree: Any) -> Any:
        """Parameters, or any tree like them, back in the layout of one device, wherever they lie."""
        return tree

    def on_host(self, tree: Any) -> Any:
        """Parameters in the layout of one device, and on one: all of them, in every process."""
        return tree

    def staying(self, step: Step) -> Step:
        """The step, with the new state placed like the old one."""
        return step

    def predicting(self, predict: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """predict(params, x) for parameters on the devices, which share the examples."""
        return predict

    def as_on_one_device(self, f: ValueAndGrad) -> ValueAndGrad:
        """f as a function of parameters in the layout of one device, with gradients in that layout too."""
        return f

    def everywhere(self, x: Any) -> jax.Array:
        """x, copied to all devices."""
        return jnp.asarray(x)

    def own(self, batch_size: int) -> Any:
        """Which examples of a batch lie on devices of this process: their indices, or a slice."""
        return slice(None)

    def steps(self, local: np.ndarray, batch_size: int) -> jax.Array:
        """(steps, batch, ...) on the devices, from the examples of each batch that `own` names."""
        return jnp.asarray(local)

    def feed(self, rows: np.ndarray) -> jax.Array:
        """(steps, batch) of integers, on the devices."""
        return self.steps(rows[:, self.own(rows.shape[1])], rows.shape[1])


ONE_DEVICE = Placement()


def _same(tree: Any) -> Any:
    return tree


@dataclass(frozen=True)
class OnMesh(Placement):
    """params: a sharding for each parameter; batch: the sharding of a batch's examples, along their first axis.

    cut(tree): parameters, or any tree like them, from the layout of one device to that of the mesh; back(tree): the reverse.
    """

    params: Any
    batch: NamedSharding
    cut: Callable[[Any], Any] = _same
    back: Callable[[Any], Any] = _same

    @property
    def whole(self) -> NamedSharding:
        return NamedSharding(self.batch.mesh, P())

    def of(self, state: TrainState) -> TrainState:
        """A sharding for each leaf: the optimizer's arrays for a parameter lie with it, everything else on all devices."""
        like = jax.tree.structure(state.params)

        def lies(part):
            if jax.tree.structure(part) != like:
                return jax.tree.map(lambda _: self.whole, part)
            return jax.tree.map(lambda s, a, p: s if a.shape == p.shape else self.whole, self.params, part, state.params)

        return jax.tree.map(lies, state, is_leaf=lambda part: jax.tree.structure(part) == like)

    def steps(self, local: np.ndarray, batch_size: int) -> jax.Array:
        sharding = NamedSharding(self.batch.mesh, P(None, *self.batch.spec))
        return jax.make_array_from_process_local_data(sharding, local, (local.shape[0], batch_size, *local.shape[2:]))

    def own(self, batch_size: int) -> np.ndarray:
        slices = self.batch.addressable_devices_indices_map((batch_size,)).values()
        found: set[int] = set()
        for cut in slices:
            found.update(range(batch_size)[cut[0] if cut else slice(None)])
        return np.array(sorted(found))

    def expect_batch(self, who: str, batch_size: int) -> None:
        (entry,) = self.batch.spec or (None,)
        names = entry if isinstance(entry, tuple) else (entry,) if entry else ()
        sizes = {name: self.batch.mesh.shape[name] for name in names}
        n = math.prod(sizes.values())
        if batch_size % n:
            axes = ", ".join(f"{name}={size}" for name, size in sizes.items())
            raise ValueError(
                f"{who}: the batch size must be a multiple of {n}, the devices that share a batch ({axes}), got {batch_size}; "
                "change one of them."
            )

    def state(self, params: Any, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
        def made(params, key):
            return init_state(self.cut(params), optimizer, key)

        return jax.jit(made, out_shardings=self.of(jax.eval_shape(made, params, key)))(params, key)

    def put(self, state: TrainState) -> TrainState:
        return jax.jit(self.cut, out_shardings=self.of(jax.eval_shape(self.cut, state)))(state)

    def join(self, tree: Any) -> Any:
        return self.back(tree)

    def on_host(self, tree: Any) -> Any:
        return jax.tree.map(jnp.asarray, jax.device_get(jax.jit(self.back, out_shardings=self.whole)(tree)))

    def staying(self, step: Step) -> Step:
        def stays(state, x, labels, weights=None):
            state, value = step(state, x, labels, weights)
            return jax.lax.with_sharding_constraint((state, value), (self.of(state), self.whole))

        return stays

    def predicting(self, predict: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        return lambda params, x: predict(self.back(params), jax.lax.with_sharding_constraint(x, self.batch))

    def as_on_one_device(self, f: ValueAndGrad) -> ValueAndGrad:
        def g(params, *batch, **options):
            value, grads = f(self.cut(params), *batch, **options)
            return jax.lax.with_sharding_constraint((value, self.back(grads)), self.whole)

        return g

    def everywhere(self, x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, self.whole, lambda index: x[index])
