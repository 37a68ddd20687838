"""How far truncated backpropagation through time is from the gradient."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...errors import expect_arrays, expect_callable
from ...feedback import angle
from ...grad import ValueAndGrad
from ...linear import wide


class TruncationBias(NamedTuple):
    """leaf: its name, or "all"; relative: |truncated - whole| / |whole| in the 2-norm; angle: between the two, in degrees.

    See `truncation_bias`.
    """

    leaf: str
    relative: float
    angle: float


def truncation_bias(
    truncated: ValueAndGrad, whole: ValueAndGrad, params: Any, x: Any, labels: Any, *, weights: Any = None, key: Any = None
) -> list[TruncationBias]:
    """The difference of a truncated gradient to the whole one, at these parameters and this batch: of all, then of each leaf.

    truncated, whole: functions like those of `value_and_grad`, of a model with `truncate` and of the same one without it.
    Where the whole gradient of a leaf is 0, its entries are NaN, or infinite.
    Raises TypeError for what is no function, or params that are no arrays.

    >>> cut, whole = (nnjax.char_rnn(5, 4, truncate=k) for k in (2, None))
    >>> both = (nnjax.value_and_grad(model, nnjax.softmax_cross_entropy()) for model in (cut, whole))
    >>> ids = jnp.array([[0, 1, 2, 3, 4, 0, 1]])
    >>> found = nnjax.train.truncation_bias(*both, whole.init(jax.random.key(0)), ids[:, :-1], ids[:, 1:])
    >>> found[0].leaf, 0 < found[0].relative < 1
    ('all', True)
    """
    for name, f in (("truncated", truncated), ("whole", whole)):
        expect_callable("truncation_bias", name, f, "pass nnjax.value_and_grad(model, loss)")
    expect_arrays("truncation_bias", "params", params, "make them with model.init(key)")

    @jax.jit
    def both(params, x, labels, weights, key):
        found = (f(params, x, labels, weights=weights, key=key)[1] for f in (truncated, whole))
        ours, right = (jax.tree.map(lambda g: g.astype(wide(g)), grads) for grads in found)
        named = jax.tree_util.tree_leaves_with_path(right)
        pairs = [("all", ours, right)]
        pairs += [(jax.tree_util.keystr(path), g, r) for (path, r), g in zip(named, jax.tree.leaves(ours), strict=True)]
        return {name: (_norm(jax.tree.map(jnp.subtract, g, r)) / _norm(r), angle(g, r)) for name, g, r in pairs}

    measured = both(params, x, labels, weights, key)
    leaves = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return [TruncationBias(name, *map(float, measured[name])) for name in ("all", *leaves)]


def _norm(tree: Any) -> Any:
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))
