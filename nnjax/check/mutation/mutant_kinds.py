"""The kinds of mutants: each makes from a Layer a wrong one with the same `apply`, or returns None if it does not apply."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ...layer import Layer
from ...layers import ConvParams, DenseParams, EmbeddingParams, GRUParams, LSTMParams, RNNParams
from ...linear import widened


class Kind(NamedTuple):
    """name; diagnosis: the kind that a check should report, if there is one; plant(layer, number) -> Layer or None, where
    `number` picks the leaf.
    """

    name: str
    diagnosis: str | None
    plant: Callable[[Layer, int], Layer | None]


def on_cotangents(layer: Layer, change: Callable[[tuple[Any, ...], Any, Any], tuple[Any, ...]]) -> Layer:
    """The layer whose bwd returns change((ct_params, ct_x), residuals, ct_y) of the right cotangents."""
    return layer._replace(bwd=lambda residuals, ct_y: change(layer.bwd(residuals, ct_y), residuals, ct_y))


def on_leaf(change: Callable[[Any, Any], Any], applies: Callable[[Any], bool] = lambda g: True) -> Callable[..., Any]:
    """Plants change(g, ct_y) in one leaf g of the cotangents: the number-th one to which it applies."""

    def plant(layer: Layer, number: int) -> Layer:
        def changed(right, residuals, ct_y):
            leaves, treedef = jax.tree.flatten(right)
            chosen = [i for i, g in enumerate(leaves) if applies(g)]
            if chosen:
                i = chosen[number % len(chosen)]
                leaves[i] = change(leaves[i], ct_y)
            return jax.tree.unflatten(treedef, leaves)

        return on_cotangents(layer, changed)

    return plant


def _batch(ct_y) -> int:
    """The number of examples; a scalar output has one."""
    return max((y.shape[0] for y in jax.tree.leaves(ct_y) if jnp.ndim(y) > 1), default=1)


def _duplicate_row(g, ct_y):
    """Replace the largest row by the one before it: two rows that are both 0 would not show it."""
    i = jnp.abs(g).reshape(g.shape[0], -1).sum(-1).argmax()
    return g.at[i].set(g[i - 1])


def _middle(g):
    """The flat index of an entry of g of medium size."""
    order = jnp.argsort(jnp.abs(g).ravel())
    return order[(3 * g.size) // 4]


def _swap_leaves(layer: Layer, number: int) -> Layer:
    def changed(right, residuals, ct_y):
        leaves, treedef = jax.tree.flatten(right)
        pairs = [(i, j) for j in range(len(leaves)) for i in range(j) if leaves[i].shape == leaves[j].shape]
        if pairs:
            i, j = pairs[number % len(pairs)]
            leaves[i], leaves[j] = leaves[j], leaves[i]
        return jax.tree.unflatten(treedef, leaves)

    return on_cotangents(layer, changed)


def _stale(layer: Layer, number: int) -> Layer:
    def rolled(x):
        return jax.tree.map(lambda v: jnp.roll(v, 1, 0) if jnp.ndim(v) and jnp.issubdtype(v.dtype, jnp.floating) else v, x)

    def fwd(params, x, *, key=None):
        return layer.fwd(params, x, key=key)[0], layer.fwd(params, rolled(x), key=key)[1]

    return layer._replace(fwd=fwd)


def _params_of(layer: Layer) -> Any:
    """The shapes of the layer's parameters."""
    return jax.eval_shape(layer.init, jax.random.key(0))


def _is_map(layer: Layer) -> bool:
    """Whether the layer is a map without parts and parameters, such as an activation."""
    return not layer.parts and not jax.tree.leaves(_params_of(layer))


def _no_sigma_prime(layer: Layer, number: int) -> Layer | None:
    if not _is_map(layer):
        return None

    def changed(right, residuals, ct_y):
        alike = jax.tree.map(jnp.shape, right[1]) == jax.tree.map(jnp.shape, ct_y)
        return ((), ct_y) if alike else right

    return on_cotangents(layer, changed)


def _wrong_z(layer: Layer, number: int) -> Layer | None:
    """Exchange the residuals of two activations."""
    maps = [i for i, part in enumerate(layer.parts) if _is_map(part)]
    if len(maps) < 2:
        return None

    def fwd(params, x, *, key=None):
        y, kept = layer.fwd(params, x, key=key)
        if not isinstance(kept, tuple) or len(kept) != len(layer.parts):
            return y, kept
        kept = list(kept)
        shapes = [jax.tree.map(lambda r: (r.shape, r.dtype), kept[i]) for i in maps]
        pairs = [(i, j) for b, j in enumerate(maps) for a, i in enumerate(maps[:b]) if shapes[a] == shapes[b]]
        if pairs:
            i, j = pairs[number % len(pairs)]
            kept[i], kept[j] = kept[j], kept[i]
        return y, tuple(kept)

    return layer._replace(fwd=fwd)


def _square_dense(replacement: Callable[..., Any]) -> Callable[..., Any]:
    def plant(layer: Layer, number: int) -> Layer | None:
        params = _params_of(layer)
        if not isinstance(params, DenseParams) or params.w.ndim != 2 or params.w.shape[0] != params.w.shape[1]:
            return None
        return on_cotangents(layer, lambda right, residuals, ct_y: (right[0], ct_y @ replacement(residuals[0].w)))

    return plant


def _inverse(w):
    return jnp.linalg.inv(widened(w)).astype(w.dtype)


def _no_broadcast_sum(layer: Layer, number: int) -> Layer | None:
    if not isinstance(_params_of(layer), DenseParams):
        return None

    def changed(right, residuals, ct_y):
        ct_params, ct_x = right
        return (ct_params if ct_params.b is None else ct_params._replace(b=ct_y)), ct_x

    return on_cotangents(layer, changed)


def _with(*kinds: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Plants only in layers with parameters of these kinds."""

    def restrict(plant):
        return lambda layer, number: plant(layer, number) if isinstance(_params_of(layer), kinds) else None

    return restrict


def _set_for_add(layer: Layer, number: int) -> Layer:
    """The last of several cotangents of one id is kept, instead of their sum."""

    def changed(right, residuals, ct_y):
        ct_params, ct_x = right
        ids = next((r for r in jax.tree.leaves(residuals) if jnp.issubdtype(r.dtype, jnp.integer)), None)
        if ids is None:
            return right
        rows = ct_y.reshape(-1, ct_y.shape[-1])
        return jax.tree.map(lambda g: jnp.zeros_like(g).at[ids.ravel()].set(rows), ct_params), ct_x

    return on_cotangents(layer, changed)


def _weighed(ct: Any) -> Any:
    """A sum with uneven weights: what comes back through a batch norm adds up to zero."""
    return (ct * jnp.cos(jnp.arange(ct.size, dtype=jnp.float32)).astype(ct.dtype).reshape(ct.shape)).sum()


def _at_ties(layer: Layer, number: int) -> Layer | None:
    """Wrong only if an input equals another one exactly."""

    def tied(x):
        same = x.ravel()[:, None] == x.ravel()[None, :]
        return (same.sum(1, dtype=jnp.int32) > 1).reshape(x.shape)

    def fwd(params, x, *, key=None):
        y, kept = layer.fwd(params, x, key=key)
        return y, (kept, tied(jax.tree.leaves(x)[0]))

    def bwd(residuals, ct_y):
        kept, mask = residuals
        ct_params, ct_x = layer.bwd(kept, ct_y)
        leaves, treedef = jax.tree.flatten(ct_x)
        if leaves and leaves[0].shape == mask.shape:
            all_of_it = jnp.asarray(sum(map(_weighed, jax.tree.leaves(ct_y))), leaves[0].dtype)  # linear in ct_y, not zero
            leaves[0] = jnp.where(mask, leaves[0] + all_of_it, leaves[0])
        return ct_params, jax.tree.unflatten(treedef, leaves)

    return layer._replace(fwd=fwd, bwd=bwd)


def _wrong_value(layer: Layer, number: int) -> Layer:
    def fwd(params, x, *, key=None):
        y, kept = layer.fwd(params, x, key=key)
        return jax.tree.map(lambda v: v * 1.01 if jnp.issubdtype(v.dtype, jnp.floating) else v, y), kept

    return layer._replace(fwd=fwd)


def _other_dtype(g, ct_y):
    return g.astype(jnp.float16 if g.dtype != jnp.float16 else jnp.float32)


KINDS = (
    Kind("no transpose", "transposed", _square_dense(lambda w: w)),
    Kind("inverse for transpose", None, _square_dense(_inverse)),
    Kind("missing sigma'", None, _no_sigma_prime),
    Kind("sigma' at the wrong z", None, _wrong_z),
    Kind("mean for sum", "scaled", on_leaf(lambda g, ct_y: g / _batch(ct_y))),
    Kind("sum for mean", "scaled", on_leaf(lambda g, ct_y: g * _batch(ct_y))),
    Kind("sign", "negated", on_leaf(lambda g, ct_y: -g)),
    Kind("times 1.01", "scaled", on_leaf(lambda g, ct_y: g * 1.01)),
    Kind("times 1.001", "scaled", on_leaf(lambda g, ct_y: g * 1.001)),
    Kind("one entry zeroed", "partial",
         on_leaf(lambda g, _: g.ravel().at[_middle(g)].set(0).reshape(g.shape), lambda g: g.size > 1)),
    Kind("one row duplicated", "partial", on_leaf(_duplicate_row, lambda g: g.ndim > 0 and g.shape[0] > 1)),
    Kind("leaves swapped", "permuted", _swap_leaves),
    Kind("stale residual", None, _stale),
    Kind("set for add on repeated ids", "partial", _with(EmbeddingParams)(_set_for_add)),
    Kind("missing broadcast sum", "wrong_shape", _no_broadcast_sum),
    Kind("time shifted by one", "permuted",
         _with(RNNParams, GRUParams, LSTMParams)(on_leaf(lambda g, _: jnp.roll(g, 1, 1), lambda g: g.ndim == 3))),
    Kind("kernel not flipped", "permuted",
         _with(ConvParams)(on_leaf(lambda g, _: jnp.flip(g, tuple(range(g.ndim - 2))), lambda g: g.ndim in (3, 4, 5)))),
    Kind("wrong at ties only", "partial", _at_ties),
    Kind("wrong in jit only", "negated", on_leaf(lambda g, ct_y: -g if isinstance(g, Tracer) else g)),
    Kind("zero", "zero", on_leaf(lambda g, ct_y: g * 0)),
    Kind("not a number", "not_finite", on_leaf(lambda g, ct_y: g.ravel().at[0].set(jnp.nan).reshape(g.shape))),
    Kind("another dtype", "wrong_dtype", on_leaf(_other_dtype)),
    Kind("wrong value", "wrong_primal", _wrong_value),
)  # fmt: skip
