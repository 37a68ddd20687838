"""The `jax.shard_map` that a rule is called in, so that it can be called in one again, on other values."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ...trees.varying import varies as varies
from ..subject import is_passed_on


class Inside(NamedTuple):
    """The mesh, and the axes over which each leaf of the arguments varied."""

    mesh: Mesh
    varying: tuple[tuple[str, ...], ...]

    @classmethod
    def now(cls, arguments: Any) -> "Inside | None":
        """For a call with these arguments; None outside, and where JAX does not track what varies (check_vma=False)."""
        abstract = jax.sharding.get_abstract_mesh()
        axes = tuple(abstract.axis_names)
        if not axes or set(abstract.manual_axes) != set(axes) or not varies(lax.axis_index(axes[0])):
            return None
        devices = np.array(jax.devices()[: abstract.size]).reshape(tuple(abstract.shape.values()))
        over = [varies(v) if is_passed_on(v) else frozenset() for v in jax.tree.leaves(arguments)]
        return cls(Mesh(devices, axes), tuple(tuple(name for name in axes if name in found) for found in over))

    def stacked(self, leaf: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of this leaf on all devices, with a new first axis for each mesh axis that it varies over."""
        return (*(self.mesh.shape[name] for name in self.varying[leaf]), *shape)

    def whole(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """f inside `jax.shard_map`, for arguments stacked in this way; outputs are stacked over all the devices."""
        axes = self.mesh.axis_names

        @functools.wraps(f)
        def on_all(*args, **kwargs):
            leaves, treedef = jax.tree.flatten((args, kwargs))
            arrays = [i for i, v in enumerate(leaves) if is_passed_on(v)]

            def local(parts):
                own = list(leaves)
                for i, part in zip(arrays, parts):
                    own[i] = part.reshape(part.shape[len(self.varying[i]) :])
                args, kwargs = jax.tree.unflatten(treedef, own)
                return jax.tree.map(stack, f(*args, **kwargs))

            def stack(y):
                missing = tuple(name for name in axes if name not in varies(y))
                y = lax.pcast(y, missing, to="varying") if missing else y
                return y.reshape((1,) * len(axes) + y.shape)

            in_specs = [P(*self.varying[i]) for i in arrays]
            run = jax.shard_map(local, mesh=self.mesh, in_specs=(in_specs,), out_specs=P(*axes))
            return run([leaves[i] for i in arrays])

        return on_all
