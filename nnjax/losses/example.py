"""What all losses share: a loss is one for each example, then their mean, sum, or nothing.

Losses are layers with no parameters and x = (y, labels) or (y, labels, weights). The examples are all axes of y but the last.
`bwd` returns ((), (ct_y, ct_labels[, ct_weights])), with None for integer labels. An empty batch, or one with only zero
weights, has the mean NaN and zero gradients. An example of weight 0 is ignored, whatever its values: it counts as zeros, and
its gradient is zero. Losses in bfloat16 and float16 are computed in float32, and rounded once at the end.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from ..errors import describe, expect_array, expect_float, expect_params, expect_same_dtype, expect_shape
from ..layer import Layer
from ..leaf import Like, leaf, outline, outlined
from ..linear import broadcast
from .reduction import expect_reduction, reduced_apply, reduced_bwd, reduced_fwd


class Rows(NamedTuple):
    """The loss of each example, as a definition and its pair.

    apply(y, labels, shared) -> losses (...), in float32 at least; fwd: (losses, residuals); bwd(residuals, ct_losses) ->
    (ct_y, ct_labels). shared: numbers that all examples have in common, such as class weights; they have no cotangent.
    expect(y, labels, weights, shared) raises where these do not fit.
    ignored(labels) -> flags of the examples that are left out, or None; counts(labels, shared, dtype) -> how much each example
    counts in the mean, or None for all 1; parts(labels, shared) -> the two as the pair takes them, if x has them otherwise.
    """

    apply: Callable[..., Any]
    fwd: Callable[..., Any]
    bwd: Callable[..., Any]
    expect: Callable[..., Any]
    ignored: Callable[[Any], Any] = lambda labels: None
    counts: Callable[..., Any] = lambda labels, shared, dtype: None
    parts: Callable[[Any, Any], Any] = lambda labels, shared: (labels, shared)


def only(x: Array, seen: Array | None) -> Array:
    """x with zeros where it is not seen: NaN times 0 would be NaN, also in a gradient.  x: (..., n), seen: (...)."""
    return x if seen is None else jnp.where(broadcast(seen[..., None], x.shape), x, jnp.zeros_like(x))


def only_targets(labels: Array, seen: Array | None) -> Array:
    """The labels of what is seen, if they are numbers with a cotangent; integers as they are."""
    return only(labels, seen) if jnp.issubdtype(labels.dtype, jnp.floating) else labels


def expect_weights(name: str, weights: list[Any], what: str, y: Any, shape: tuple[int, ...]) -> None:
    """Raise unless there are no weights, or one for each example, of this shape, with the dtype of y; what: the name of y."""
    for w in weights:
        expect_float(name, "weights", w)
        expect_shape(name, "weights", w, shape)
        expect_same_dtype(name, "weights", w, what, y)


def seen_of(rows: Rows, labels: Any, weights: list[Any]) -> Array | None:
    """Flags of the examples that are not ignored, or None if that is all of them."""
    ignored = rows.ignored(labels)
    seen = None if ignored is None else ~ignored
    for w in weights:
        seen = w != 0 if seen is None else seen & (w != 0)
    return seen


def unpacked(name: str, x: Any, first: str = "y") -> tuple[Any, Any, list[Any]]:
    """(y, labels, [weights]) of the x of a loss. Raises TypeError for anything else."""
    if not isinstance(x, tuple) or len(x) not in (2, 3):
        came = f"{len(x)} entries" if isinstance(x, tuple) else describe(x)
        raise TypeError(
            f"{name}: x must be the tuple ({first}, labels) or ({first}, labels, weights), got {came}; pass one of these."
        )
    y, labels, *weights = x
    return y, labels, weights


def _entered(name: str, rows: Rows, x: Any, shared: Any) -> Any:
    y, labels, weights = unpacked(name, x)
    expect_float(name, "y", y)
    if y.ndim < 1:
        raise ValueError(f"{name}: y must have a last axis of outputs, got a scalar; pass shape (..., n).")
    expect_weights(name, weights, "y", y, y.shape[:-1])
    rows.expect(y, labels, weights, shared)
    y, labels, *weights = map(jnp.asarray, (y, labels, *weights))
    seen = seen_of(rows, labels, weights)
    return only(y, seen), only_targets(labels, seen), weights[0] if weights else None, seen


def unseen_apply(losses: Array, seen: Array | None) -> Array:
    """The losses, 0 for what is ignored."""
    return losses if seen is None else jnp.where(seen, losses, jnp.zeros_like(losses))


def loss_apply(x: Any, shared: Any, *, name: str, rows: Rows, reduction: str) -> Array:
    y, labels, weights, seen = _entered(name, rows, x, shared)
    losses = unseen_apply(rows.apply(y, labels, shared), seen)
    return reduced_apply(losses, weights, rows.counts(labels, shared, losses.dtype), reduction).astype(y.dtype)


def loss_fwd(x: Any, shared: Any, *, name: str, rows: Rows, reduction: str) -> Any:
    y, labels, weights, seen = _entered(name, rows, x, shared)
    losses, residuals = rows.fwd(y, labels, shared)
    losses = unseen_apply(losses, seen)
    value, reduced = reduced_fwd(losses, weights, rows.counts(labels, shared, losses.dtype), reduction)
    value = value.astype(y.dtype)
    return value, (residuals, seen, reduced, outline(value))


def loss_bwd(residuals: Any, ct_value: Array, *, rows: Rows, reduction: str) -> Any:
    residuals, seen, reduced, _ = residuals
    ct_losses, ct_weights = reduced_bwd(reduced, ct_value, reduction)
    cts = rows.bwd(residuals, unseen_apply(ct_losses, seen))  # what was replaced by 0 has no cotangent
    return cts if ct_weights is None else (*cts, ct_weights)


def loss(name: str, rows: Rows, reduction: str = "mean", shared: Any = None) -> Layer[Array]:
    """The Layer of a loss of each example and how they are reduced."""
    return closed(shared_loss(name, rows, reduction), rows, shared)


def shared_loss(name: str, rows: Rows, reduction: str) -> Layer[Array]:
    """The same, with `shared` in place of the parameters, as the functional forms take it."""
    expect_reduction(name, reduction)
    how = {"rows": rows, "reduction": reduction}
    return leaf(
        name,
        lambda key: None,
        lambda shared, x, *, key=None: loss_apply(x, shared, name=name, **how),
        lambda shared, x, *, key=None: loss_fwd(x, shared, name=name, **how),
        lambda residuals, ct_value: (None, loss_bwd(residuals, ct_value, **how)),
        output,
    )._replace(counts=total_of(name, reduction))


def output(residuals: Any) -> Like:
    """The value of a loss, whose outline is the last residual."""
    return outlined(residuals[-1])


def total_of(name: str, reduction: str) -> Callable[..., Any] | None:
    """`Layer.counts` of what is no mean: it raises. None for a mean, in which every example counts 1."""

    def refuse(labels, dtype):
        raise ValueError(f"{name}: the total weight of a batch is that of a mean, but reduction is {reduction!r}; use 'mean'.")

    return None if reduction == "mean" else refuse


def closed(layer: Layer[Array], rows: Rows, shared: Any) -> Layer[Array]:
    """The loss whose parameters are (), as what its examples share is given."""

    def entered(f):
        def called(params, x, *, key=None):
            expect_params(layer.name, params, tuple)
            return f(shared, x)

        return called

    def bwd(f):
        return lambda residuals, ct_value: ((), f(residuals, ct_value)[1])

    def around(one: Layer) -> Layer:
        return one._replace(init=init, apply=entered(one.apply), fwd=entered(one.fwd), bwd=bwd(one.bwd), counts=counts)

    def init(key):
        layer.init(key)
        return ()

    counts = layer.counts or (lambda labels, dtype: rows.counts(jnp.asarray(labels), shared, dtype))
    made = around(layer)
    return made if layer.plain is None else made._replace(plain=around(layer.plain))


def constants(name: str, what: str, values: Any) -> Any:
    """A number, or a list or array of them, the same for all examples, as an array. Raises TypeError for anything else."""
    values = np.asarray(values, np.float64) if isinstance(values, (list, tuple, int, float)) else values
    expect_array(name, what, values)
    if not jnp.issubdtype(values.dtype, jnp.floating) and not jnp.issubdtype(values.dtype, jnp.integer):
        raise TypeError(f"{name}: {what} must be numbers, got {describe(values)}; pass an array of them.")
    return values


def known(*values: Any) -> bool:
    """Whether the values are known while a program is traced."""
    return not any(isinstance(v, Tracer) for v in values)
