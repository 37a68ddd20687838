"""What varies between the devices of `jax.shard_map`, and how to make arguments vary together before a hand-written rule.

The backward of a rule gives each device its own share of a gradient. If an argument is the same on all devices, like the
weights of a data-parallel program, its gradient is the sum of the shares: the transpose of the copy to each device.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax


def varies(x: Any) -> frozenset[str]:
    """The mesh axes over which x may differ between devices."""
    return jax.typeof(x).manual_axis_type.varying


def _arrays(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]


def together(tree: Any) -> Any:
    """The tree, every array free to vary over all the mesh axes that any of them varies over.

    Nothing is sent; the transpose of the cast is the sum over the devices. Outside `jax.shard_map`, and where that does not
    track what varies (check_vma=False), it is the tree itself.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return tree
    over = frozenset[str]().union(*(varies(leaf) for leaf in _arrays(tree)))

    def one(leaf):
        missing = tuple(sorted(over - varies(leaf))) if hasattr(leaf, "dtype") else ()
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(one, tree)


def varying_as(x: Any, aval: Any) -> Any:
    """x, free to vary between devices wherever what has this type is."""
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return x
    missing = tuple(sorted(aval.manual_axis_type.varying - varies(x)))
    return lax.pcast(x, missing, to="varying") if missing else x


def communicates(fwd: Callable[..., tuple[Any, ...]], bwd: Callable[..., tuple[Any, ...]], params: Any, x: Any) -> bool:
    """Whether the pair's cotangents vary as params and x do, though these do not vary together.

    This holds for the layers of a mesh, which sum over devices themselves: their arguments must stay as they are.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes or len({varies(leaf) for leaf in _arrays((params, x))}) < 2:
        return False

    def pulled(params, x):
        y, residuals = fwd(params, x)
        return bwd(residuals, y)  # the output serves as a cotangent, as it varies like one

    try:
        found = jax.eval_shape(pulled, params, x)
    except Exception:  # calling the rule itself will report any error
        return False
    given = dict(jax.tree_util.tree_leaves_with_path((params, x)))
    return all(ct.manual_axis_type.varying <= varies(given[at]) for at, ct in jax.tree_util.tree_leaves_with_path(found))
