"""What varies between the devices of `jax.shard_map`, and arguments made to vary together before a hand-written rule.

A rule's backward gives each device its own share of a gradient. Where an argument is the same on all devices, as the weights
of a data-parallel program are, its gradient is the sum of the shares: the transpose of the copy that each device took.
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

    Nothing is sent; the cast's own transpose is the sum over the devices. Outside `jax.shard_map`, and where that does not
    keep books of what varies (check_vma=False), it is the tree itself.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return tree
    over = frozenset[str]().union(*(varies(leaf) for leaf in _arrays(tree)))

    def one(leaf):
        missing = tuple(sorted(over - varies(leaf))) if hasattr(leaf, "dtype") else ()
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(one, tree)


def communicates(fwd: Callable[..., tuple[Any, ...]], bwd: Callable[..., tuple[Any, ...]], params: Any, x: Any) -> bool:
    """Whether this pair's own cotangents vary as params and x do, though these do not vary together.

    So it is with the layers of a mesh, which sum over devices themselves: their arguments must stay as they are.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes or len({varies(leaf) for leaf in _arrays((params, x))}) < 2:
        return False

    def pulled(params, x):
        y, residuals = fwd(params, x)
        return bwd(residuals, y)  # an output stands for a cotangent: it varies as one does

    try:
        found = jax.eval_shape(pulled, params, x)
    except Exception:  # whatever is wrong is said when the rule itself is called
        return False
    given = dict(jax.tree_util.tree_leaves_with_path((params, x)))
    return all(ct.manual_axis_type.varying <= varies(given[at]) for at, ct in jax.tree_util.tree_leaves_with_path(found))
