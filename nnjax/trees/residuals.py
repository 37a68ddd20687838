"""Residuals that are parameters: they are not kept again, but read in the backward."""

from typing import Any, NamedTuple

import jax


@jax.tree_util.register_static
class _Parameter(NamedTuple):
    """Stands for a residual that is the i-th leaf of the layer's parameters: it is not an array, so nothing is stacked.

    outer: how many outer layers that replace their own parameters it has passed since.
    """

    i: int
    outer: int = 0


def _is_parameter(r) -> bool:
    return isinstance(r, _Parameter)


def without_parameters(residuals: Any, params: Any) -> Any:
    """The residuals, with a `_Parameter` for every leaf of params among them."""
    known = {id(p): _Parameter(i) for i, p in enumerate(jax.tree.leaves(params))}
    return jax.tree.map(
        lambda r: r._replace(outer=r.outer + 1) if _is_parameter(r) else known.get(id(r), r), residuals, is_leaf=_is_parameter
    )


def with_parameters(residuals: Any, params: Any) -> Any:
    """The residuals again, with these parameters."""
    leaves = jax.tree.leaves(params)

    def found(r):
        if not _is_parameter(r):
            return r
        return r._replace(outer=r.outer - 1) if r.outer else leaves[r.i]

    return jax.tree.map(found, residuals, is_leaf=_is_parameter)
