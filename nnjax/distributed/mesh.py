"""Meshes of devices, and functions of whole arrays that run on a mesh."""

from functools import wraps
from typing import Any

import jax
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..errors import describe, expect_arrays, expect_callable, expect_key, expect_positive, unknown_name
from ..grad import ValueAndGrad
from .collectives import Axis, names
from .sharded import Sharded, cut_alone, expect_divides, expect_mesh


def make_mesh(**axes: int) -> Mesh:
    """A mesh with these axes, as in make_mesh(data=4, model=2), over the first devices that are present.

    Raises ValueError for sizes that are not positive ints, and for more devices than are present.

    >>> dict(nnjax.distributed.make_mesh(data=1, model=1).shape)
    {'data': 1, 'model': 1}
    """
    if not axes:
        raise ValueError("make_mesh: expected at least one axis, got none; name one with its size, as in make_mesh(data=8).")
    axes = dict(zip(axes, expect_positive("make_mesh", **axes)))
    n, present = 1, jax.device_count()
    for size in axes.values():
        n *= size
    if n > present:
        raise ValueError(
            f"make_mesh: {' x '.join(f'{k}={v}' for k, v in axes.items())} needs {n} devices, got {present}; make "
            "an axis smaller, or on a CPU set jax.config.update('jax_num_cpu_devices', N) before JAX is first used."
        )
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * len(axes), devices=jax.devices()[:n])


def place(tree: Any, specs: Any, mesh: Mesh) -> Any:
    """The arrays of a tree, placed as their specs say: a PartitionSpec for each array, or for each part of the tree.

    Raises TypeError for anything but arrays, specs and a mesh, ValueError for specs of another tree or that do not fit.

    >>> from jax.sharding import PartitionSpec
    >>> mesh = nnjax.distributed.make_mesh(data=jax.device_count())
    >>> x = nnjax.distributed.place(jnp.ones((jax.device_count(), 4)), PartitionSpec("data"), mesh)
    >>> len(x.addressable_shards) == jax.device_count()
    True
    """
    expect_placeable("place", "tree", tree, specs, mesh)
    return jax.device_put(tree, jax.tree.map(lambda s: NamedSharding(mesh, s), specs, is_leaf=lambda s: isinstance(s, P)))


def expect_specs(who: str, specs: Any) -> tuple[list[P], Any]:
    """The specs of a tree and its structure. Raises TypeError for anything but a PartitionSpec."""
    found, shape = jax.tree.flatten(specs, is_leaf=lambda s: isinstance(s, P))
    for s in found:
        if not isinstance(s, P):
            raise TypeError(f"{who}: specs must be PartitionSpecs, got {describe(s)}; take those of a Sharded, or P() for "
                            "copies.")  # fmt: skip
    return found, shape


def expect_placeable(who: str, what: str, tree: Any, specs: Any, mesh: Mesh) -> None:
    """Raise TypeError or ValueError unless the mesh can hold every array of the tree as its spec says."""
    expect_mesh(who, mesh)
    expect_arrays(who, what, tree)
    found, shape = expect_specs(who, specs)
    try:
        parts = shape.flatten_up_to(tree)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{who}: {what} must be a tree like its specs, but {error}; take both from one layer.") from None
    for s, part in zip(found, parts):
        for a in jax.tree.leaves(part):
            if len(s) > a.ndim:
                raise ValueError(f"{who}: the spec {s} has more entries than the array of {what} has axes, {describe(a)}; pass "
                                 "its own spec.")  # fmt: skip
            for size, entry in zip(a.shape, s):
                expect_divides(who, f"an axis of {what}, of {describe(a)}", size, mesh, entry or ())


def on_mesh(f: ValueAndGrad, model: Sharded, mesh: Mesh, axis: Axis = "data") -> ValueAndGrad:
    """f, which runs on each device with its part, as a function of whole arrays: a `value_and_grad` like that of one device.

    f: `nnjax.value_and_grad(model.layer, loss)` or its reference; the batch is the first axis of x, labels and weights, and
    is spread over the devices of `axis`. Each of them draws its own random numbers from the key.
    Raises TypeError for a model that is not Sharded. Raises ValueError for an axis that the mesh lacks or that layers are
    split over, for a batch that is not a multiple of it, and for an f whose value or gradients differ between devices.

    >>> from nnjax.distributed import make_mesh, mean_over, on_mesh, replicated
    >>> copies = replicated(nnjax.dense(4, 3), "data")
    >>> f = nnjax.value_and_grad(copies.layer, mean_over(nnjax.softmax_cross_entropy(), "data"))
    >>> on_all = on_mesh(f, copies, make_mesh(data=jax.device_count()))
    >>> params, n = copies.layer.init(jax.random.key(0)), 2 * jax.device_count()
    >>> value, grads = jax.jit(on_all)(params, jnp.ones((n, 4)), jnp.zeros(n, jnp.int32))
    >>> grads.w.shape
    (4, 3)
    """
    if not isinstance(model, Sharded):
        raise TypeError(f"on_mesh: model must be Sharded, got {describe(model)}; make it one, as in replicated(model, 'data').")
    expect_specs("on_mesh", model.specs)
    expect_callable("on_mesh", "f", f, "make it with nnjax.value_and_grad(model.layer, loss)")
    expect_mesh("on_mesh", mesh)
    for name in names(axis):
        if name not in mesh.shape:
            raise unknown_name("axis of this mesh", name, tuple(mesh.shape))
        if name in cut_alone(model):
            raise ValueError(
                f"on_mesh: the batch cannot lie along the mesh axis {name!r}, as layers are split over it and need the same "
                "examples on all its devices; name another."
            )
    batch = P(names(axis))

    def local(params, x, labels, weights, key):
        if key is not None:
            for name in names(axis):
                key = jax.random.fold_in(key, lax.axis_index(name))
        return f(params, x, labels, weights=weights, key=key)

    @wraps(f, assigned=())
    def whole(params, x, labels, *, weights=None, key=None):
        expect_placeable("on_mesh", "params", params, model.specs, mesh)
        expect_batch("on_mesh", (x, labels, weights), mesh, axis)
        if key is not None:
            expect_key("on_mesh", key)
        run = jax.shard_map(local, mesh=mesh, in_specs=(model.specs, batch, batch, batch, P()), out_specs=(P(), model.specs))
        try:
            return run(params, x, labels, weights, key)
        except ValueError as error:
            if "require replication" not in str(error):
                raise
            raise ValueError(
                "on_mesh: the value or a gradient must be the same on all devices, as its spec says, but is not; make f from "
                "mean_over(loss, axis), and from a model that is replicated(model, axis) or fully_sharded."
            ) from error

    return whole


def expect_batch(who: str, batch: Any, mesh: Mesh, axis: Axis) -> None:
    """Raise ValueError unless the first axis of every array of the batch is a multiple of the mesh axis."""
    expect_arrays(who, "the batch", batch)
    for leaf in jax.tree.leaves(batch):
        if not leaf.ndim:
            raise ValueError(f"{who}: expected a batch along the first axis, got {describe(leaf)}; pass arrays of examples.")
        expect_divides(who, "the batch", leaf.shape[0], mesh, axis)
