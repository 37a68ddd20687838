"""Layers whose parameters lie on several devices, and how they compose.

A Sharded layer's `init` makes whole parameters; `specs` says how a mesh holds them; `apply`, `fwd` and `bwd` run on each
device inside `jax.shard_map`, on its own part of the parameters and of the examples. Where one of them sends something, its
transpose is sent back (`collectives`); all else is the mathematics of one device, unchanged.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from .. import layer as one_device
from ..layer import Layer, TiedParams, expect_layer
from ..residuals import with_parameters, without_parameters
from .collectives import Axis, copy_to, copy_to_t, gather, gather_t, names


class Sharded(NamedTuple):
    """layer: as described above; specs: a PartitionSpec for each parameter, in a tree like that of the parameters."""

    layer: Layer
    specs: Any


def _is_spec(s) -> bool:
    return isinstance(s, P)


def like_parameters(layer: Layer, leaves: Sequence[Any]) -> Any:
    """A tree like that of the layer's parameters, of these leaves."""
    return jax.tree.unflatten(jax.tree.structure(jax.eval_shape(layer.init, jax.random.key(0))), leaves)


def lifted(who: str, part: Any) -> Sharded:
    """A Sharded as it is; a plain Layer with all its parameters whole on every device.  Raises TypeError for anything else."""
    if isinstance(part, Sharded):
        return part
    expect_layer(who, part)
    return Sharded(part, jax.tree.map(lambda _: P(), jax.eval_shape(part.init, jax.random.key(0))))


def _with_stack(spec: P) -> P:
    return P(None, *spec)


def serial(*parts: Sharded | Layer) -> Sharded:
    """`nnjax.serial`, of parts that may be sharded."""
    found = [lifted("parallel.serial", part) for part in parts]
    return Sharded(one_device.serial(*(s.layer for s in found)), tuple(s.specs for s in found))


def residual(part: Sharded | Layer) -> Sharded:
    """`nnjax.residual`."""
    found = lifted("parallel.residual", part)
    return found._replace(layer=one_device.residual(found.layer))


def scan_layers(block: Sharded | Layer, n: int, *, remat: bool = False) -> Sharded:
    """`nnjax.scan_layers`: parameters are stacked along a new first axis, which no mesh axis shares."""
    found = lifted("parallel.scan_layers", block)
    specs = jax.tree.map(_with_stack, found.specs, is_leaf=_is_spec)
    return Sharded(one_device.scan_layers(found.layer, n, remat=remat), specs)


def tied(embed: Sharded, body: Sharded, head: Sharded | Layer) -> Sharded:
    """`nnjax.tied`; the table lies as that of embed does."""
    layer = one_device.tied(embed.layer, body.layer, head.layer if isinstance(head, Sharded) else head)
    return Sharded(layer, TiedParams(embed.specs, body.specs))


def replicated(part: Sharded | Layer, axis: Axis) -> Sharded:
    """Every device of the axis has a copy of the parameters, and its own examples.

    The transpose of the copies is the sum of their cotangents: one all-reduce of the gradients' bytes.
    """
    found = lifted("parallel.replicated", part)
    layer = found.layer

    def apply(params, x, *, key=None):
        return layer.apply(copy_to(params, axis), x, key=key)

    def fwd(params, x, *, key=None):
        return layer.fwd(copy_to(params, axis), x, key=key)

    def bwd(residuals, ct_y):
        ct_params, ct_x = layer.bwd(residuals, ct_y)
        return copy_to_t(ct_params, axis), ct_x

    return found._replace(layer=layer._replace(apply=apply, fwd=fwd, bwd=bwd))


def fully_sharded(part: Sharded | Layer, mesh: Mesh, axis: str) -> Sharded:
    """Every device of the axis holds its share of every parameter, and gathers the rest while it needs them.

    Forward gathers them; backward gathers them again, so that none stay in between; and the transpose of the gathering, one
    reduce-scatter, sums the gradients and leaves each device those of its share (Rajbhandari et al. 2020, stage 3).
    A parameter is cut along its first axis that the size of the mesh axis divides; one without stays whole. Those that are
    cut over this axis already, by a `fully_sharded` inside, are left to it.
    """
    found = lifted("parallel.fully_sharded", part)
    layer, shapes = found.layer, jax.tree.leaves(jax.eval_shape(found.layer.init, jax.random.key(0)))
    specs, treedef = jax.tree.flatten(found.specs, is_leaf=_is_spec)
    own = [i for i, spec in enumerate(specs) if axis not in _axes(spec)]
    dims = [cut(shapes[i].shape, specs[i], mesh, axis) for i in own]

    def through(collective, tree):
        leaves, structure = jax.tree.flatten(tree)
        for i, leaf in zip(own, collective([leaves[i] for i in own], axis, dims)):
            leaves[i] = leaf
        return jax.tree.unflatten(structure, leaves)

    def apply(params, x, *, key=None):
        return layer.apply(through(gather, params), x, key=key)

    def fwd(params, x, *, key=None):
        whole = through(gather, params)
        y, kept = layer.fwd(whole, x, key=key)
        return y, (params, without_parameters(kept, whole))

    def bwd(residuals, ct_y):
        params, kept = residuals
        ct_whole, ct_x = layer.bwd(with_parameters(kept, through(gather, params)), ct_y)
        return through(gather_t, ct_whole), ct_x

    for i, d in zip(own, dims):
        specs[i] = _along(specs[i], d, axis, shapes[i].ndim)
    return Sharded(layer._replace(apply=apply, fwd=fwd, bwd=bwd), jax.tree.unflatten(treedef, specs))


def cut(shape: tuple[int, ...], spec: P, mesh: Mesh, axis: str) -> int | None:
    """The first axis of this shape that the mesh axis divides: one that no other shares, or else what another leaves of it."""
    taken = [math.prod(mesh.shape[name] for name in names(entry or ())) for entry in _entries(spec, len(shape))]
    fits = [d for d, size in enumerate(shape) if size and size % (taken[d] * mesh.shape[axis]) == 0]
    return min(fits, key=lambda d: taken[d] > 1, default=None)


def _entries(spec: P, ndim: int) -> list[Any]:
    return [*spec, *(None,) * (ndim - len(spec))]


def _axes(spec: P) -> set[str]:
    return {name for entry in spec for name in names(entry or ())}


def _along(spec: P, d: int | None, axis: str, ndim: int) -> P:
    if d is None:
        return spec
    entries = _entries(spec, ndim)
    entries[d] = axis if entries[d] is None else (*names(entries[d]), axis)
    return P(*entries)


def expect_divides(who: str, what: str, size: int, mesh: Mesh, axis: Axis) -> int:
    """size over the number of devices along the axis. Raises ValueError where that is no whole number or there is no axis."""
    missing = [name for name in names(axis) if name not in mesh.shape]
    if missing:
        raise ValueError(f"{who}: the mesh has no axis {missing[0]!r}, only {', '.join(mesh.shape)}; name one of them.")
    n = 1
    for name in names(axis):
        n *= mesh.shape[name]
    if size % n:
        raise ValueError(
            f"{who}: {what} must be a multiple of {n}, the size of the mesh axis {axis!r}, got {size}; change either of them."
        )
    return size // n
