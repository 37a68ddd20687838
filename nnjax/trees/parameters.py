"""Which parameters are weights: those that decay."""

from typing import Any

import jax
import numpy as np


def is_weight(params: Any) -> Any:
    """A tree like params, True for weights, which decay and are penalised, False for biases, norms and statistics.

    A NamedTuple of parameters says itself which of its fields are weights, by a class attribute WEIGHTS that names them,
    however many axes they have: under `scan_layers` a bias has two. Every other field of it is looked into: what says
    nothing there is no weight.
    Of all other trees (dictionaries, lists, parameters of other libraries) it is known by the axes alone: arrays with two or
    more are weights.
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
