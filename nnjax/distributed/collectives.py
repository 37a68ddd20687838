"""Communication between devices, each collective directly above its transpose.

Inside `jax.shard_map` a value lives on every device of a mesh axis. If it is the same on all of them it is *invariant*, if
it may differ it is *varying*; JAX keeps track (`check_vma=True`). A collective is a linear map of the values of all devices
at once, so it has a transpose:

    copy_to      one value to every device        its transpose sums over the devices          copy_to_t
    reduce_from  the sum over devices             its transpose copies one cotangent to all    reduce_from_t
    gather       every shard to every device      its transpose sums, and scatters the shards  gather_t
    exchange     block j of device i to device j  its transpose sends each block back          exchange_t

copy_to and reduce_from are the conjugate pair of Shoeybi et al. 2019 (f and g): each is the other's transpose.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..errors import describe
from ..fast.choose import by_platform
from ..trees.varying import varies as varies

Axis = str | tuple[str, ...]
LANES = 128  # numbers in a row of a TPU's vector registers


def names(axis: Axis) -> tuple[str, ...]:
    """The mesh axes that `axis` names. Raises TypeError unless it is a name or a tuple of names."""
    found = (axis,) if isinstance(axis, str) else axis
    if not isinstance(found, (tuple, list)) or not all(isinstance(name, str) for name in found):
        raise TypeError(f"a mesh axis must be a name, or a tuple of names, got {describe(axis)}; pass e.g. 'data'.")
    return tuple(found)


def expect_books(who: str, axis: Axis) -> None:
    """Raise ValueError outside `jax.shard_map` over this axis, and if shard_map does not track what varies.

    Without tracking, JAX's own transposes differ: jax.grad through a psum is too large by the size of the axis.
    """
    for name in names(axis):
        try:
            index = lax.axis_index(name)
        except NameError:
            raise ValueError(
                f"{who}: the mesh axis {name!r} is missing here; call it inside jax.shard_map over a mesh that has it."
            ) from None
        if name not in varies(index):
            raise ValueError(
                f"{who}: jax.shard_map must run with check_vma=True, got False, under which a sum's transpose over devices is "
                f"wrong by the size of the axis {name!r}; leave it True."
            )


def copy_to(x: Any, axis: Axis) -> Any:
    """y = x on every device of the axis, which may vary from here on; x: a tree of arrays. Nothing is sent.

    Each device continues with a copy, and the transpose of a copy is a sum: `copy_to_t`.
    """
    expect_books("copy_to", axis)

    def one(a):
        missing = tuple(name for name in names(axis) if name not in varies(a))
        return lax.pcast(a, missing, to="varying") if missing else a

    return jax.tree.map(one, x)


def copy_to_t(ct_y: Any, axis: Axis) -> Any:
    """ct_x = the sum of ct_y over the devices, the same on all; a whole tree of one dtype in one all-reduce."""
    expect_books("copy_to_t", axis)
    return in_one(ct_y, lambda flat: lax.psum(flat, axis))


def reduce_from(x: Any, axis: Axis) -> Any:
    """y = the sum of x over the devices, the same on all; the transpose is `reduce_from_t`, a copy."""
    expect_books("reduce_from", axis)
    return in_one(x, lambda flat: lax.psum(flat, axis))


def reduce_from_t(ct_y: Any, axis: Axis) -> Any:
    """ct_x = ct_y on each device, as every summand counts once. Nothing is sent."""
    return copy_to(ct_y, axis)


def in_one(tree: Any, collective: Any) -> Any:
    """The collective of the leaves, joined into one array and split again: one message instead of one for each leaf."""
    leaves, treedef = jax.tree.flatten(tree)
    done = list(leaves)
    for own in _alike(leaves, range(len(leaves))):
        flat = collective(jnp.concatenate([leaves[i].ravel() for i in own]))
        at = 0
        for i in own:
            done[i] = flat[at : at + leaves[i].size].reshape(leaves[i].shape)
            at += leaves[i].size
    return jax.tree.unflatten(treedef, done)


def gather(x: Any, axis: Axis, dims: Sequence[int | None]) -> Any:
    """y = the shards of every device along dims[i] of leaf i, in the order of the devices; a whole tree in one all-gather.

    dims: one entry for each leaf, None for a leaf that is whole on every device, which is only copied (`copy_to`).
    Each shard is copied to all devices, so the transpose sums over them, and leaves each device its own shard (`gather_t`).
    """
    expect_books("gather", axis)
    leaves, treedef = jax.tree.flatten(x)
    n, done = lax.axis_size(axis), [copy_to(leaf, axis) for leaf in leaves]
    for own in _alike(leaves, [i for i, d in enumerate(dims) if d is not None]):
        flat = jnp.concatenate([leaves[i].ravel() for i in own])
        found, at = by_platform(flat, plain=partial(lax.all_gather, axis_name=axis), tpu=partial(_in_rows, axis=axis)), 0
        for i in own:
            shape, d = leaves[i].shape, dims[i] or 0
            blocks = found[:, at : at + leaves[i].size].reshape(n, *shape)
            done[i] = jnp.moveaxis(blocks, 0, d).reshape(*shape[:d], n * shape[d], *shape[d + 1 :])
            at += leaves[i].size
    return jax.tree.unflatten(treedef, done)


def _in_rows(flat: jax.Array, axis: Axis) -> jax.Array:
    """all_gather of flat, (devices, size of flat), each share padded with zeros to fill a row.

    If rows are not full, a TPU's compiler sends a sum of arrays that are zero except for one share: twice the bytes.
    """
    return lax.all_gather(jnp.pad(flat, (0, -flat.size % LANES)), axis)[:, : flat.size]


def gather_t(ct_y: Any, axis: Axis, dims: Sequence[int | None]) -> Any:
    """ct_x = for each leaf the device's own shard of the sum over devices: one reduce-scatter, and one all-reduce for the
    leaves that are whole."""
    expect_books("gather_t", axis)
    leaves, treedef = jax.tree.flatten(ct_y)
    n, done = lax.axis_size(axis), list(leaves)
    for own in _alike(leaves, [i for i, d in enumerate(dims) if d is not None]):
        rows = []
        for i in own:
            shape, d = leaves[i].shape, dims[i] or 0
            blocks = leaves[i].reshape(*shape[:d], n, shape[d] // n, *shape[d + 1 :])
            rows.append(jnp.moveaxis(blocks, d, 0).reshape(n, -1))
        found, at = lax.psum_scatter(jnp.concatenate(rows, 1), axis), 0
        for i in own:
            shape, d = leaves[i].shape, dims[i] or 0
            size = math.prod(shape) // n
            done[i] = found[at : at + size].reshape(*shape[:d], shape[d] // n, *shape[d + 1 :])
            at += size
    whole = [i for i, d in enumerate(dims) if d is None]
    for i, summed in zip(whole, copy_to_t([leaves[i] for i in whole], axis) if whole else []):
        done[i] = summed
    return jax.tree.unflatten(treedef, done)


def exchange(x: jax.Array, axis: str) -> jax.Array:
    """y_i on device j = x_j on device i.  x, y: (devices, ...), a block for each device of the axis: one all-to-all.

    Seen as a matrix of blocks, a row for each device, it is a transposition: its own inverse, and as a permutation its own
    transpose (`exchange_t`).
    """
    expect_books("exchange", axis)
    return lax.all_to_all(copy_to(x, axis), axis, 0, 0)


def exchange_t(ct_y: jax.Array, axis: str) -> jax.Array:
    """ct_x_j on device i = ct_y_i on device j: every block back to where it came from."""
    return exchange(ct_y, axis)


def _alike(leaves, chosen):
    """The numbers of the chosen leaves, grouped by dtype and by the axes that they vary over, so that both survive joining."""
    kinds = dict.fromkeys((leaves[i].dtype, varies(leaves[i])) for i in chosen)
    return [[i for i in chosen if (leaves[i].dtype, varies(leaves[i])) == kind] for kind in kinds]
