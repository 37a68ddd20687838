"""Residuals that are parameters: not kept a second time, but read again in the backward."""

from typing import Any, NamedTuple

import jax


@jax.tree_util.register_static
class _Parameter(NamedTuple):
    """In the place of a residual that is the i-th leaf of the layer's parameters: no array, hence nothing to stack.

    outer: through how many layers that replace parameters it has come since; those are not its own.
    """

    i: int
    outer: int = 0


def _is_parameter(r) -> bool:
    return isinstance(r, _Parameter)


def without_parameters(residuals: Any, params: Any) -> Any:
    """The residuals, with a `_Parameter` for every leaf that is one of params."""
    known = {id(p): _Parameter(i) for i, p in enumerate(jax.tree.leaves(params))}
    return jax.tree.map(
        lambda r: r._replace(outer=r.outer + 1) if _is_parameter(r) else known.get(id(r), r), residuals, is_leaf=_is_parameter
    )


def with_parameters(residuals: Any, params: Any) -> Any:
    """Back again, with these parameters."""
    leaves = jax.tree.leaves(params)

    def found(r):
        if not _is_parameter(r):
            return r
        return r._replace(outer=r.outer - 1) if r.outer else leaves[r.i]

    return jax.tree.map(found, residuals, is_leaf=_is_parameter)
