"""Which parameters are weights, and so decay."""

from typing import Any

import jax
import numpy as np


def is_weight(params: Any) -> Any:
    """A tree like params, True for weights, which decay and are penalised, False for biases, norms and statistics.

    A NamedTuple of parameters names its weights in a class attribute WEIGHTS, whatever their number of axes: under
    `scan_layers` a bias has two. Its other fields are searched; arrays there that are not named are not weights.
    In all other trees (dictionaries, lists, parameters of other libraries) only the axes decide: arrays with two or more are
    weights.
    """
    return _marked(params, lambda leaf: np.ndim(leaf) >= 2)


def weights_in(params: Any) -> list[Any]:
    """The weights among the leaves of params, in their order."""
    return [leaf for leaf, chosen in zip(jax.tree.leaves(params), jax.tree.leaves(is_weight(params)), strict=True) if chosen]


def _says(part: Any) -> bool:
    return isinstance(part, tuple) and hasattr(type(part), "WEIGHTS")


def _marked(params: Any, otherwise: Any) -> Any:
    def found(part):
        if not _says(part):
            return otherwise(part)
        marks = {}
        for name, field in zip(part._fields, part):
            chosen = name in part.WEIGHTS
            marks[name] = _marked(field, lambda leaf, chosen=chosen: chosen)
        return type(part)(**marks)

    return jax.tree.map(found, params, is_leaf=_says)
