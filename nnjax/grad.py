"""The gradient of a whole model, by hand and by `jax.grad`, with one signature, so that either can be used anywhere.

f(params, x, labels, *, weights=None, key=None) -> (value, grads)
"""

import inspect
import warnings
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Literal, Protocol, TypeVar, overload

import jax
import jax.numpy as jnp

from .errors import (
    describe,
    expect_arrays,
    expect_flag,
    expect_float,
    expect_key,
    expect_not_negative,
    expect_positive,
    unknown_name,
)
from .layer import Layer, expect_layer
from .layers.dropout import draws_from_key
from .linear import wide
from .losses.reduction import weight_in
from .trees.parameters import is_weight, weights_in

V = TypeVar("V", covariant=True)


class Graded(Protocol[V]):
    """f(params, x, labels, *, weights=None, key=None) -> (value, grads); everything but the value is a pytree."""

    def __call__(self, params: Any, x: Any, labels: Any, /, *, weights: Any = None, key: Any = None) -> tuple[V, Any]: ...


ValueAndGrad = Graded[jax.Array]
WithAux = Graded[tuple[jax.Array, Any]]  # the value comes with the model's output


def expect_model_and_loss(who: str, model: Layer, loss: Layer) -> None:
    """Raise TypeError unless both are layers."""
    expect_layer(f"{who}: model", model)
    expect_layer(f"{who}: loss", loss)


def loss_input(y: Any, labels: Any, weights: Any) -> tuple[Any, Any] | tuple[Any, Any, Any]:
    """What a loss takes as x."""
    return (y, labels) if weights is None else (y, labels, weights)


def counting(f: Graded[V], loss: Layer) -> Graded[V]:
    """f, with `loss.counts`, which `accumulate` looks for; functools.wraps hands it on to a function around f."""
    vars(f)["counts"] = loss.counts
    return f


def _counts(f: Any) -> Callable[..., Any] | None:
    return getattr(inspect.unwrap(f, stop=lambda g: hasattr(g, "counts")), "counts", None)


def _warn_without_key(who: str, model: Layer, key) -> None:
    if key is None and draws_from_key(model):
        warnings.warn(
            f"{who}: the model has dropout but no key was given, so nothing is dropped; pass key=jax.random.key(...).",
            stacklevel=3,
        )


@overload
def value_and_grad(model: Layer, loss: Layer, *, has_aux: Literal[False] = False) -> ValueAndGrad: ...
@overload
def value_and_grad(model: Layer, loss: Layer, *, has_aux: Literal[True]) -> WithAux: ...
@overload
def value_and_grad(model: Layer, loss: Layer, *, has_aux: bool) -> Graded[Any]: ...


def value_and_grad(model: Layer, loss: Layer, *, has_aux: bool = False) -> Graded[Any]:
    """f(params, x, labels, *, weights=None, key=None) -> (value, grads), through the hand-written backward only.

    value: (), the loss of the model's output; grads: a tree like params.  With `has_aux` the first result is
    (value, y), y the model's output, as in JAX.  Warns if a model with dropout gets no key.
    Raises TypeError where model or loss is no Layer.

    >>> model, loss = nnjax.dense(4, 3), nnjax.softmax_cross_entropy()
    >>> params = model.init(jax.random.key(0))
    >>> value, grads = nnjax.value_and_grad(model, loss)(params, jnp.ones((5, 4)), jnp.zeros(5, jnp.int32))
    >>> value.shape, grads.w.shape
    ((), (4, 3))
    """
    expect_model_and_loss("value_and_grad", model, loss)
    expect_flag("value_and_grad", has_aux=has_aux)

    def f(params, x, labels, *, weights=None, key=None):
        _warn_without_key("value_and_grad", model, key)
        y, residuals = model.fwd(params, x, key=key)
        value, loss_residuals = loss.fwd((), loss_input(y, labels, weights))
        _, (ct_y, *_) = loss.bwd(loss_residuals, jnp.ones_like(value))
        grads, _ = model.bwd(residuals, ct_y)
        return ((value, y) if has_aux else value), grads

    return counting(f, loss)


@overload
def reference_value_and_grad(model: Layer, loss: Layer, *, has_aux: Literal[False] = False) -> ValueAndGrad: ...
@overload
def reference_value_and_grad(model: Layer, loss: Layer, *, has_aux: Literal[True]) -> WithAux: ...
@overload
def reference_value_and_grad(model: Layer, loss: Layer, *, has_aux: bool) -> Graded[Any]: ...


def reference_value_and_grad(model: Layer, loss: Layer, *, has_aux: bool = False) -> Graded[Any]:
    """The same function, made by `jax.value_and_grad` of `model.apply` and `loss.apply`.

    Raises as `value_and_grad` does, and for parameters that are not floating point.

    >>> model, loss = nnjax.dense(4, 3), nnjax.softmax_cross_entropy()
    >>> batch = model.init(jax.random.key(0)), jnp.ones((5, 4)), jnp.zeros(5, jnp.int32)
    >>> by_hand, by_jax = nnjax.value_and_grad(model, loss)(*batch), nnjax.reference_value_and_grad(model, loss)(*batch)
    >>> bool(jnp.allclose(by_hand[1].w, by_jax[1].w, atol=1e-6))
    True
    """
    expect_model_and_loss("reference_value_and_grad", model, loss)
    expect_flag("reference_value_and_grad", has_aux=has_aux)

    def objective(params, x, labels, weights, key):
        y = model.apply(params, x, key=key)
        return loss.apply((), loss_input(y, labels, weights)), y

    def f(params, x, labels, *, weights=None, key=None):
        _warn_without_key("reference_value_and_grad", model, key)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            expect_float("reference_value_and_grad", f"params{jax.tree_util.keystr(path)}", leaf)
        (value, y), grads = jax.value_and_grad(objective, has_aux=True)(params, x, labels, weights, key)
        return ((value, y) if has_aux else value), grads

    return counting(f, loss)


def accumulate(f: ValueAndGrad, microbatches: int) -> ValueAndGrad:
    """The same value and gradient, from `microbatches` equal parts of the batch, one after another, which takes less memory.

    sum_k W_k (value_k, grads_k) / sum_k W_k, W_k the total weight of part k: exactly that of the whole batch, whatever the
    weights, if the model treats each example separately.  The batch is the first axis of x, labels and weights.  Each part
    draws its own numbers from the key.  The sums are kept in float32 at least, whatever the dtype of the model.
    What an example counts (0 where its label is ignored, the weight of its class) is known of an f by `nnjax.value_and_grad`,
    and of your own function around it if that is made with functools.wraps; else only the weights are.
    Raises ValueError for a batch that is not a multiple of `microbatches`, and for a loss that is no mean; TypeError for an f
    with `has_aux`.

    >>> model, loss = nnjax.dense(4, 3), nnjax.softmax_cross_entropy()
    >>> f = nnjax.accumulate(nnjax.value_and_grad(model, loss), 2)
    >>> value, grads = f(model.init(jax.random.key(0)), jnp.ones((6, 4)), jnp.zeros(6, jnp.int32))
    >>> grads.w.shape
    (4, 3)
    """
    (microbatches,) = expect_positive("accumulate", microbatches=microbatches)
    counts = _counts(f)

    @wraps(f, assigned=())
    def accumulated(params, x, labels, *, weights=None, key=None):
        expect_arrays("accumulate", "params", params, "make them with layer.init(key)")
        if key is not None:
            expect_key("accumulate", key)
        batch = (x, labels, weights)
        for name, tree in zip(("x", "labels", "weights"), batch):
            expect_arrays("accumulate", name, tree)
        for leaf in jax.tree.leaves(batch):
            if jnp.ndim(leaf) < 1 or jnp.shape(leaf)[0] % microbatches:
                raise ValueError(
                    f"accumulate: a batch must split into {microbatches} equal parts, got {describe(leaf)}; "
                    "choose a number that divides its first axis."
                )
        split = jax.tree.map(lambda a: a.reshape(microbatches, a.shape[0] // microbatches, *a.shape[1:]), batch)
        keys = None if key is None else jax.random.split(key, microbatches)

        def one(params, batch_key):
            (x, labels, weights), k = batch_key
            value, grads = f(params, x, labels, weights=weights, key=k)
            if isinstance(value, tuple):
                raise TypeError("accumulate: f must return (value, grads), got an output beside the value; leave out has_aux.")
            w = weight_in(labels, weights, counts, (), wide(value))
            value = jnp.where(w == 0, jnp.zeros_like(value), value)  # the mean of an empty part is NaN, and its weight is 0
            return w, (value, grads)

        def part(carry, batch_key):
            total, sums = carry
            w, found = one(params, batch_key)
            return (total + w, jax.tree.map(lambda s, a: s + w.astype(s.dtype) * a.astype(s.dtype), sums, found)), None

        shapes = jax.eval_shape(one, params, jax.tree.map(lambda a: a[0], (split, keys)))
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, wide(s)), shapes)
        (total, sums), _ = jax.lax.scan(part, zeros, (split, keys))
        some = jnp.where(total == 0, jnp.ones_like(total), total)
        value, grads = jax.tree.map(lambda s, like: (s / some.astype(s.dtype)).astype(like.dtype), sums, shapes[1])
        return jnp.where(total == 0, jnp.full_like(value, jnp.nan), value), grads

    return accumulated


def _plus(value: Any, factor: float, summands: Iterable[jax.Array]) -> Any:
    """value + factor times the sum of the summands, taken in float32 at least; a model's output beside the value stays."""
    if isinstance(value, tuple):
        return (_plus(value[0], factor, summands), *value[1:])
    acc = wide(value)
    total = sum((s.astype(acc) for s in summands), start=jnp.zeros((), acc))
    return (value.astype(acc) + factor * total).astype(value.dtype)


def add_l2(f: Graded[V], coefficient: float) -> Graded[V]:
    """value + (coefficient / 2) sum w^2 over every weight (`nnjax.trees.parameters.is_weight`): biases and norms do not decay.

    Its gradient adds coefficient * w.  Nielsen's lambda is coefficient = lambda / n, n the number of training examples.
    With `has_aux` only the value, not the output, is changed.

    >>> from nnjax.grad import add_l2
    >>> f = add_l2(nnjax.value_and_grad(nnjax.dense(1, 1), nnjax.mean_squared_error()), 1.0)
    >>> params = nnjax.DenseParams(jnp.array([[2.0]]), jnp.zeros(1))
    >>> value, grads = f(params, jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    >>> float(value), float(grads.w[0, 0])
    (2.0, 2.0)
    """
    (coefficient,) = expect_not_negative("add_l2", coefficient=coefficient)

    @wraps(f, assigned=())
    def penalised(params, x, labels, *, weights=None, key=None):
        value, grads = f(params, x, labels, weights=weights, key=key)
        squares = (jnp.vdot(w, w, preferred_element_type=wide(w)) for w in weights_in(params))
        grads = jax.tree.map(lambda g, w, decays: g + coefficient * w if decays else g, grads, params, is_weight(params))
        return _plus(value, 0.5 * coefficient, squares), grads

    return penalised


def add_l1(f: Graded[V], coefficient: float) -> Graded[V]:
    """value + coefficient sum |w| over every weight (`nnjax.trees.parameters.is_weight`), not over biases and norms.

    Its gradient adds coefficient * sign(w), sign(0) = 0.  With `has_aux` only the value, not the output, is changed.

    >>> from nnjax.grad import add_l1
    >>> f = add_l1(nnjax.value_and_grad(nnjax.dense(1, 1), nnjax.mean_squared_error()), 1.0)
    >>> params = nnjax.DenseParams(jnp.array([[-2.0]]), jnp.zeros(1))
    >>> value, grads = f(params, jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    >>> float(value), float(grads.w[0, 0])
    (2.0, -1.0)
    """
    (coefficient,) = expect_not_negative("add_l1", coefficient=coefficient)

    @wraps(f, assigned=())
    def penalised(params, x, labels, *, weights=None, key=None):
        value, grads = f(params, x, labels, weights=weights, key=key)
        sizes = (jnp.abs(w).sum(dtype=wide(w)) for w in weights_in(params))
        shrinks = is_weight(params)
        grads = jax.tree.map(lambda g, w, chosen: g + coefficient * jnp.sign(w) if chosen else g, grads, params, shrinks)
        return _plus(value, coefficient, sizes), grads

    return penalised


def lower_precision(f: Graded[V], dtype: Any) -> Graded[V]:
    """f computed in `dtype` (bfloat16, float16): it casts parameters, inputs, floating labels and weights down first.

    Value and gradient come back in the dtypes of the parameters. The cast down is linear, its transpose the cast back up.

    >>> from nnjax.grad import lower_precision
    >>> f = lower_precision(nnjax.value_and_grad(nnjax.dense(4, 3), nnjax.mean_squared_error()), jnp.bfloat16)
    >>> value, grads = f(nnjax.dense(4, 3).init(jax.random.key(0)), jnp.ones((5, 4)), jnp.ones((5, 3)))
    >>> str(grads.w.dtype)
    'float32'
    """
    try:
        low = jnp.dtype(dtype)
    except (TypeError, ValueError):
        name = dtype if isinstance(dtype, str) else describe(dtype)
        raise unknown_name("compute dtype", name, ("bfloat16", "float16", "float32")) from None
    if not jnp.issubdtype(low, jnp.floating):
        raise ValueError(f"lower_precision: dtype must be floating, got {low}; pass bfloat16.")

    def cast(tree, to):
        return jax.tree.map(lambda a: a.astype(to) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)

    @wraps(f, assigned=())
    def lowered(params, x, labels, *, weights=None, key=None):
        for name, tree in (("params", params), ("x", x), ("labels", labels), ("weights", weights)):
            expect_arrays("lower_precision", name, tree)
        value, grads = f(*cast((params, x, labels), low), weights=cast(weights, low), key=key)
        widest = jnp.result_type(*jax.tree.leaves(params))
        return cast(value, widest), jax.tree.map(lambda g, p: g.astype(p.dtype), grads, params)

    return lowered
