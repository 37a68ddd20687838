"""The angle between what the feedback sends back and the gradient, layer by layer, while a network trains."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...feedback import Operator, angle, pseudo_inverse
from ...grad import ValueAndGrad
from ...layers import MirrorParams
from ...linear import fold
from ...trees.parameters import is_weight

ANGLE, RATIO = "angle to the gradient of ", "norm over the gradient's of "
PSEUDO = "angle to the pseudo-inverse of the feedback of "


class Aligned(NamedTuple):
    """hand: with the feedback of this run; right: with the transpose; operators: of each layer with weights after the first,
    none for direct feedback."""

    hand: ValueAndGrad
    right: ValueAndGrad
    operators: tuple[Operator, ...] = ()


def _is_mirrored(p: Any) -> bool:
    return isinstance(p, MirrorParams)


def weights(params: Any) -> dict[str, tuple[jax.Array, jax.Array | None]]:
    """Every weight (see `is_weight`), by name in the order of the layers, and its own B if it has one (mirror)."""
    found = {}
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=_is_mirrored)
    for (path, leaf), chosen in zip(leaves, jax.tree.leaves(is_weight(params), is_leaf=_is_mirrored), strict=True):
        own = leaf.back if isinstance(leaf, MirrorParams) else None
        leaf = leaf.forward.w if isinstance(leaf, MirrorParams) else leaf
        if chosen:
            found[jax.tree_util.keystr(path).lstrip(".")] = leaf, own
    return found


def make_alignment(aligned: Aligned, x: jax.Array, labels: jax.Array) -> Callable[[Any], dict[str, jax.Array]]:
    """measure(params) -> for the weights of each layer, on this batch: the angle in degrees between the update direction
    and the gradient, the ratio of their norms, and the angle between W and the pseudo-inverse of its B.

    Random feedback works because training turns the first angle below 90 degrees, and W towards the pseudo-inverse of B
    (Lillicrap et al. 2016).
    """

    @jax.jit
    def measure(params):
        key = jax.random.key(0)
        ours, right = (weights(f(params, x, labels, key=key)[1]) for f in (aligned.hand, aligned.right))
        found = {}
        for name, (g, _) in right.items():
            found[ANGLE + name] = angle(ours[name][0], g)
            found[RATIO + name] = jnp.linalg.norm(ours[name][0].ravel()) / jnp.linalg.norm(g.ravel())
        for (name, (w, own)), operator in zip(list(weights(params).items())[1:], aligned.operators):
            w = fold(w)
            b = operator(w) if own is None else own
            found[PSEUDO + name] = angle(w, pseudo_inverse(b))
        return found

    return measure


def angle_lines(first: dict[str, Any], last: dict[str, Any]) -> str:
    """A line for each layer: its angle to the gradient at the first step and at the last."""
    names = [name.removeprefix(ANGLE) for name in first if name.startswith(ANGLE)]
    title = "angle to the gradient, degrees"
    lines = [f"{n:{len(title)}}  {float(first[ANGLE + n]):5.1f} first, {float(last[ANGLE + n]):5.1f} last" for n in names]
    return "\n".join([title, *lines])
