"""What to watch besides the loss: how large every gradient is, and how far the two gradients are apart."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ...grad import ValueAndGrad
from ...linear import wide
from ..recipe import Recipe
from ..step import TrainState
from .alignment import make_alignment

NORM, APART = "gradient norm of ", "hand against jax"


Measure = Callable[[TrainState], dict[str, Any]]


def make_measure(recipe: Recipe, x: jax.Array, labels: jax.Array) -> Measure:
    """`make_norms`, and also `make_alignment` if something other than the transpose carries the error back."""
    norms = make_norms(recipe.hand, recipe.reference, x, labels)
    aligned = make_alignment(recipe.aligned, x, labels) if recipe.aligned else None
    return lambda state: norms(state) | (aligned(state.params) if aligned else {})


def make_norms(by_hand: ValueAndGrad, by_jax: ValueAndGrad, x: jax.Array, labels: jax.Array) -> Measure:
    """measure(state) -> the 2-norm of each parameter's gradient on this batch, and |hand - jax| / |jax| over all of them."""

    @jax.jit
    def both(params):
        key = jax.random.key(0)
        found = (f(params, x, labels, key=key)[1] for f in (by_hand, by_jax))
        hand, reference = (jax.tree.map(lambda g: g.astype(wide(g)), grads) for grads in found)  # squares overflow float16
        norms = jax.tree.map(lambda g: jnp.linalg.norm(g.ravel()), hand)
        apart = [jnp.sum((h - r) ** 2) for h, r in zip(jax.tree.leaves(hand), jax.tree.leaves(reference))]
        size = [jnp.sum(r**2) for r in jax.tree.leaves(reference)]
        return norms, jnp.sqrt(sum(apart[1:], apart[0]) / jnp.maximum(sum(size[1:], size[0]), jnp.finfo(jnp.float32).tiny))

    def measure(state):
        norms, apart = both(state.params)
        leaves = jax.tree_util.tree_leaves_with_path(norms)
        return {APART: apart, **{NORM + jax.tree_util.keystr(path).lstrip("."): norm for path, norm in leaves}}

    return measure
