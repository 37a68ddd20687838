"""Batch normalisation with statistics of the batch, or with frozen ones, and the pass that computes those."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..errors import describe, expect_float, expect_not_negative, expect_positive
from ..layer import Layer, expect_layer
from ..leaf import leaf
from ..linear import broadcast, broadcast_t, widened
from .norm import expect_norm, standardise_apply, standardise_fwd


class BatchNormParams(NamedTuple):
    """scale, offset: (n,); mean, var: (n,), the frozen statistics, or both None to use those of the batch."""

    scale: Array
    offset: Array
    mean: Array | None = None
    var: Array | None = None

    WEIGHTS = ()


def _but_last(x) -> tuple[int, ...]:
    return tuple(range(x.ndim - 1))


def _frozen(params, eps):
    """The frozen (mean, 1 / sqrt(var + eps))."""
    return widened(params.mean), lax.rsqrt(widened(params.var) + eps)


def batch_norm_apply(params: Any, x: Array, eps: float) -> Array:
    """y = scale (x - mean) / sqrt(var + eps) + offset; mean and var of x over all axes but the last, unless frozen."""
    v = widened(x)
    if params.mean is None:
        y = standardise_apply(v, _but_last(x), eps)
    else:
        mean, one_over_s = _frozen(params, eps)
        y = (v - broadcast(mean, x.shape)) * broadcast(one_over_s, x.shape)
    return (y * broadcast(widened(params.scale), x.shape) + broadcast(widened(params.offset), x.shape)).astype(x.dtype)


def batch_norm_fwd(params: Any, x: Array, eps: float) -> Any:
    v = widened(x)
    if params.mean is None:
        y, (mean, one_over_s) = standardise_fwd(v, _but_last(x), eps)
    else:
        mean, one_over_s = _frozen(params, eps)
        y = (v - broadcast(mean, x.shape)) * broadcast(one_over_s, x.shape)
    y = (y * broadcast(widened(params.scale), x.shape) + broadcast(widened(params.offset), x.shape)).astype(x.dtype)
    return y, (params, x, mean, one_over_s)


def batch_norm_bwd(residuals: Any, ct_y: Array) -> Any:
    params, x, mean, one_over_s = residuals
    ct_y, shape, dtype = widened(ct_y), x.shape, x.dtype
    y = (widened(x) - broadcast(mean, shape)) * broadcast(one_over_s, shape)
    # scale and offset are copied to every example: their cotangents are sums over the examples
    ct_scale, ct_offset = broadcast_t(ct_y * y, params.scale.shape), broadcast_t(ct_y, params.scale.shape)
    slope = widened(params.scale) * one_over_s.reshape(params.scale.shape)
    if params.mean is not None:  # frozen: x -> y is diagonal, and mean and var are copied to every example too
        ct_mean, ct_var = -slope * ct_offset, -0.5 * slope * one_over_s * ct_scale
        cts = BatchNormParams(*(ct.astype(dtype) for ct in (ct_scale, ct_offset, ct_mean, ct_var)))
        return cts, (broadcast(slope, shape) * ct_y).astype(dtype)
    # The symmetric Jacobian of `norm`, whose two sums over the batch are those of offset and scale.
    n = max(x.size // x.shape[-1], 1)
    ct_x = ct_y - broadcast(ct_offset / n, shape) - y * broadcast(ct_scale / n, shape)
    return BatchNormParams(ct_scale.astype(dtype), ct_offset.astype(dtype)), (broadcast(slope, shape) * ct_x).astype(dtype)


def batch_norm(n: int, *, eps: float = 1e-5) -> Layer[Array]:
    """y = scale (x - mean) / sqrt(var + eps) + offset.  x, y: (batch, ..., n); scale, offset, mean, var: (n,).

    If mean and var are None (as `init` makes them), they are computed from x over all axes but the last, var with 1/n: this
    is training. If they are given, they are frozen: this is inference. `calibrate` computes them; nothing is kept between
    calls. Frozen statistics are parameters and have true cotangents, so leave them out of the optimizer if you train further.
    Ioffe and Szegedy 2015, algorithms 1 and 2.  Raises TypeError and ValueError for params or x of another kind, shape or
    dtype, and if only one of mean and var is given.
    """
    (n,), (eps,) = expect_positive("batch_norm", n=n), expect_not_negative("batch_norm", eps=eps)

    def checked(params, x):
        expect_norm("batch_norm", n, params, x, BatchNormParams, least=2)
        if (params.mean is None) != (params.var is None):
            given = "var" if params.mean is None else "mean"
            raise ValueError(f"batch_norm: mean and var must both be given or both be None, got only {given}; "
                             "nnjax.calibrate gives both.")  # fmt: skip
        return params, x

    return leaf(
        f"batch_norm({n})",
        lambda key: BatchNormParams(jnp.ones((n,), jnp.float32), jnp.zeros((n,), jnp.float32)),
        lambda params, x, *, key=None: batch_norm_apply(*checked(params, x), eps),
        lambda params, x, *, key=None: batch_norm_fwd(*checked(params, x), eps),
        batch_norm_bwd,
        lambda residuals: residuals[1],  # x: y is like it
    )


def calibrate(model: Layer, params: Any, batches: Iterable[Any]) -> Any:
    """params, with mean and var of every batch_norm inside `model` filled in from the activations of `batches`.

    Layer by layer, in the order in which they act, each batch_norm gets the statistics of its input over all batches
    together. From then on it is frozen, so that the next one sees what it will see at inference. Existing statistics are
    replaced. There is no key, so dropout does nothing. The activations of all batches at one layer are in memory at the same
    time.  batches: inputs of the model, without labels.
    Raises ValueError for no batches, and for a composition that does not say what its parts meet.
    """
    expect_layer("calibrate", model)
    if not isinstance(batches, Iterable):
        raise TypeError(f"calibrate: batches must be a list of inputs of the model, got {describe(batches)}; pass e.g. [x].")
    xs = list(batches)
    if not xs:
        raise ValueError("calibrate: expected at least one batch, got none; pass inputs of the model, e.g. [x].")
    return _through(model, params, xs)[0]


def _is_batch_norm(params: Any) -> bool:
    return isinstance(params, BatchNormParams)


def _through(layer: Layer, params: Any, xs: list) -> tuple[Any, list]:
    """(params with statistics, the layer's outputs for every x)."""
    if _is_batch_norm(params):
        expect_float("calibrate", "scale", params.scale)
        for x in xs:
            expect_float("calibrate", "x", x)
        params = params._replace(**_statistics(xs, params.scale.dtype))
    elif any(map(_is_batch_norm, jax.tree.leaves(params, is_leaf=_is_batch_norm))):
        return _through_parts(layer, params, xs)
    return params, [layer.apply(params, x) for x in xs]


def _through_parts(layer: Layer, params: Any, xs: list) -> tuple[Any, list]:
    """The same for a composition: all x go through it side by side, so that each part gets the inputs from all of them."""
    if layer.walk is None:
        raise ValueError(f"calibrate: {layer.name} must say what its parts meet; compose the model of nnjax.serial, "
                         "residual, parallel, scan_layers and tied.")  # fmt: skip
    walks = [layer.walk(params, x, None) for x in xs]
    parts = [next(walk) for walk in walks]
    while True:
        p, ys = _through(parts[0].layer, parts[0].params, [part.x for part in parts])
        parts, ends = [], []
        for walk, y in zip(walks, ys):
            try:
                parts.append(walk.send((p, y)))
            except StopIteration as end:
                ends.append(end.value)
        if ends:
            return ends[0][0], [y for _, y in ends]


def _statistics(xs: list, dtype: Any) -> dict[str, Array]:
    """Mean and variance (with 1/n) over all batches, all axes but the last; in two passes, to avoid cancellation."""
    count = sum(x.size // x.shape[-1] for x in xs)
    if not count:
        raise ValueError("calibrate: the batches must hold examples to have statistics, got none; pass some inputs.")
    mean = jnp.stack([widened(x).sum(_but_last(x)) for x in xs]).sum(0) / count
    centred = [widened(x) - broadcast(mean, x.shape) for x in xs]
    var = jnp.stack([(c * c).sum(_but_last(c)) for c in centred]).sum(0) / count
    return {"mean": mean.astype(dtype), "var": var.astype(dtype)}
