"""Layers with parameters on several devices, and how they compose.

`init` of a Sharded layer makes whole parameters; `specs` says how a mesh holds them; `apply`, `fwd` and `bwd` run on each
device inside `jax.shard_map`, on its own part of the parameters and of the examples. Where the forward communicates, the
backward runs the transposed collective (`collectives`); everything else is the mathematics of one device, unchanged.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from .. import combinators as one_device
from ..combinators import TiedParams
from ..errors import describe
from ..layer import Layer, expect_layer
from ..trees.residuals import with_parameters, without_parameters
from .collectives import Axis, copy_to, copy_to_t, gather, gather_t, names


class Sharded(NamedTuple):
    """layer: as described above; specs: a PartitionSpec for each parameter, in a tree like that of the parameters.

    summed: a frozenset for each parameter, in a tree of the same kind: the mesh axes over which `bwd` has summed its
    gradient, as `replicated` and `fully_sharded` do, so that no outer one sums again; None: no axis.
    """

    layer: Layer
    specs: Any
    summed: Any = None


def _is_spec(s) -> bool:
    return isinstance(s, P)


def _specs(part: Sharded) -> list[P]:
    return jax.tree.leaves(part.specs, is_leaf=_is_spec)


def _summed(part: Sharded) -> Any:
    """part.summed, with a frozenset for each parameter if it is None."""
    return jax.tree.map(lambda _: frozenset(), part.specs, is_leaf=_is_spec) if part.summed is None else part.summed


def cut_alone(part: Sharded) -> set[str]:
    """The mesh axes over which layers are split but gradients are not summed: their devices see the same examples."""
    done = jax.tree.leaves(_summed(part))
    return {name for spec, names_of in zip(_specs(part), done, strict=True) for name in _axes(spec) - names_of}


def _expect_one_use(who: str, part: Sharded, axis: Axis = ()) -> None:
    """Raise ValueError if gradients are summed, or will be summed over `axis`, over an axis that layers are split over.

    The former has different examples along it, the latter the same: gradients would be too large or too small.
    """
    summed = set(names(axis)).union(*jax.tree.leaves(_summed(part)))
    for name in sorted(summed & cut_alone(part)):
        raise ValueError(
            f"{who}: layers split over the mesh axis {name!r} need the same examples on all its devices, but those that "
            "are replicated or fully_sharded over it have different examples on each; use two axes."
        )


def like_parameters(layer: Layer, leaves: Sequence[Any]) -> Any:
    """A tree like that of the layer's parameters, with these leaves."""
    return jax.tree.unflatten(jax.tree.structure(jax.eval_shape(layer.init, jax.random.key(0))), leaves)


def lifted(who: str, part: Any) -> Sharded:
    """A Sharded as it is; a plain Layer with all its parameters whole on every device.  Raises TypeError for anything else."""
    if isinstance(part, Sharded):
        return part
    expect_layer(who, part)
    return Sharded(part, jax.tree.map(lambda _: P(), jax.eval_shape(part.init, jax.random.key(0))))


def _with_stack(spec: P) -> P:
    return P(None, *spec)


def _trimmed(spec: P) -> tuple[Any, ...]:
    """The spec without the Nones at its end, which have no meaning."""
    return tuple(spec)[: 1 + max((d for d, entry in enumerate(spec) if entry is not None), default=-1)]


def _with_axes(summed: Any, axis: Axis) -> Any:
    return jax.tree.map(lambda done: done | set(names(axis)), summed)


def _with(leaves: Sequence[Any], places: Sequence[int], new: Sequence[Any]) -> list[Any]:
    """The leaves, with those at these places replaced."""
    found = list(leaves)
    for i, leaf in zip(places, new, strict=True):
        found[i] = leaf
    return found


def serial(*parts: Sharded | Layer) -> Sharded:
    """`nnjax.serial`, for parts that may be sharded.

    Raises ValueError for an axis over which some parts are split while others have different examples along it.
    """
    found = [lifted("parallel.serial", part) for part in parts]
    layer = one_device.serial(*(s.layer for s in found))
    whole = Sharded(layer, tuple(s.specs for s in found), tuple(_summed(s) for s in found))
    _expect_one_use("parallel.serial", whole)
    return whole


def residual(part: Sharded | Layer) -> Sharded:
    """`nnjax.residual`."""
    found = lifted("parallel.residual", part)
    return found._replace(layer=one_device.residual(found.layer))


def scan_layers(block: Sharded | Layer, n: int, *, remat: bool = False) -> Sharded:
    """`nnjax.scan_layers`: parameters are stacked along a new first axis, which is not split over the mesh."""
    found = lifted("parallel.scan_layers", block)
    specs = jax.tree.map(_with_stack, found.specs, is_leaf=_is_spec)
    return found._replace(layer=one_device.scan_layers(found.layer, n, remat=remat), specs=specs)


def tied(embed: Sharded | Layer, body: Sharded | Layer, head: Sharded | Layer) -> Sharded:
    """`nnjax.tied`; the table has the specs of embed, and a Sharded head must have the same.

    Raises ValueError if it does not, as the two cotangents could not be added.
    """
    embed, body = lifted("parallel.tied", embed), lifted("parallel.tied", body)
    theirs = head if isinstance(head, Sharded) else embed._replace(layer=head, summed=None)
    if [*map(_trimmed, _specs(theirs))] != [*map(_trimmed, _specs(embed))]:
        raise ValueError(
            f"parallel.tied: embed and head share one table, so its specs must agree, got {_specs(embed)} for embed and "
            f"{_specs(theirs)} for head; shard both alike."
        )
    if jax.tree.leaves(_summed(theirs)) != jax.tree.leaves(_summed(embed)):
        raise ValueError(
            "parallel.tied: embed and head share one table, but only one of them sums its gradient over mesh axes; make the "
            "whole tied model replicated or fully_sharded, or both of them."
        )
    layer = one_device.tied(embed.layer, body.layer, theirs.layer)
    whole = Sharded(layer, TiedParams(embed.specs, body.specs), TiedParams(_summed(embed), _summed(body)))
    _expect_one_use("parallel.tied", whole)
    return whole


def replicated(part: Sharded | Layer, axis: Axis) -> Sharded:
    """Every device of the axis has a copy of the parameters, and its own examples.

    The transpose of the copies is the sum of their cotangents: one all-reduce of the gradients. A gradient that an inner
    `replicated` or `fully_sharded` has already summed over this axis is not summed again.
    Raises ValueError if the layers inside are split over this axis, and so need the same examples.
    """
    found = lifted("parallel.replicated", part)
    _expect_one_use("parallel.replicated", found, axis)
    layer, done = found.layer, _summed(found)
    left = [tuple(name for name in names(axis) if name not in d) for d in jax.tree.leaves(done)]
    if left and not any(left):
        return found

    def over(collective, tree):
        if len(set(left)) <= 1:
            return collective(tree, left[0] if left else axis)
        leaves, structure = jax.tree.flatten(tree)
        for some in dict.fromkeys(filter(None, left)):
            own = [i for i, axes in enumerate(left) if axes == some]
            leaves = _with(leaves, own, collective([leaves[i] for i in own], some))
        return jax.tree.unflatten(structure, leaves)

    def apply(params, x, *, key=None):
        return layer.apply(over(copy_to, params), x, key=key)

    def fwd(params, x, *, key=None):
        return layer.fwd(over(copy_to, params), x, key=key)

    def bwd(residuals, ct_y):
        ct_params, ct_x = layer.bwd(residuals, ct_y)
        return over(copy_to_t, ct_params), ct_x

    return found._replace(layer=layer._replace(apply=apply, fwd=fwd, bwd=bwd), summed=_with_axes(done, axis))


def fully_sharded(part: Sharded | Layer, mesh: Mesh, axis: str) -> Sharded:
    """Every device of the axis holds its share of every parameter, and gathers the rest while it needs them.

    Forward gathers them; backward gathers them again, so that they are not kept in between. The transpose of the gather, one
    reduce-scatter, sums the gradients and leaves each device those of its share (Rajbhandari et al. 2020, stage 3).
    A parameter is split along its first axis that the size of the mesh axis divides; without such an axis it stays whole. An
    inner `fully_sharded` or `replicated` that sums gradients over this axis keeps its parameters, whole ones too.
    Raises ValueError if the layers inside are split over this axis, and so need the same examples.
    """
    found = lifted("parallel.fully_sharded", part)
    if not isinstance(axis, str):
        raise TypeError(
            f"parallel.fully_sharded: axis must be the name of one mesh axis, got {axis!r}; for two, nest one "
            "fully_sharded in another."
        )
    expect_mesh("parallel.fully_sharded", mesh, axis)
    _expect_one_use("parallel.fully_sharded", found, axis)
    layer, shapes = found.layer, jax.tree.leaves(jax.eval_shape(found.layer.init, jax.random.key(0)))
    specs, treedef = jax.tree.flatten(found.specs, is_leaf=_is_spec)
    own = [i for i, done in enumerate(jax.tree.leaves(_summed(found))) if axis not in done]
    if not own:
        return found
    dims = [cut(shapes[i].shape, specs[i], mesh, axis) for i in own]

    def through(collective, tree):
        leaves, structure = jax.tree.flatten(tree)
        return jax.tree.unflatten(structure, _with(leaves, own, collective([leaves[i] for i in own], axis, dims)))

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

    specs = _with(specs, own, [_along(specs[i], d, axis, shapes[i].ndim) for i, d in zip(own, dims)])
    whole = layer._replace(apply=apply, fwd=fwd, bwd=bwd)
    return Sharded(whole, jax.tree.unflatten(treedef, specs), _with_axes(_summed(found), axis))


def cut(shape: tuple[int, ...], spec: P, mesh: Mesh, axis: str) -> int | None:
    """The first axis of this shape that the mesh axis divides: preferably one that no other mesh axis splits."""
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


def expect_mesh(who: str, mesh: Any, axis: Axis = ()) -> None:
    """Raise TypeError unless mesh is a mesh, ValueError for an axis that it lacks."""
    if not isinstance(mesh, (Mesh, AbstractMesh)):
        raise TypeError(f"{who}: mesh must be a jax.sharding.Mesh, got {describe(mesh)}; make one, as in make_mesh(data=2).")
    missing = [name for name in names(axis) if name not in mesh.shape]
    if missing:
        raise ValueError(f"{who}: axis must be one of the mesh, {', '.join(mesh.shape)}, got {missing[0]!r}; name one of them.")


def expect_divides(who: str, what: str, size: int, mesh: Mesh, axis: Axis) -> int:
    """size divided by the number of devices along the axis. Raises ValueError if that is not whole, or without such an axis."""
    expect_mesh(who, mesh, axis)
    n = 1
    for name in names(axis):
        n *= mesh.shape[name]
    if size % n:
        raise ValueError(
            f"{who}: {what} must be a multiple of {n}, the size of the mesh axis {axis!r}, got {size}; change one of them."
        )
    return size // n
