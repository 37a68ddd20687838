"""Batch normalisation with statistics of the batch or frozen ones, and the pass that computes the frozen ones."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..errors import describe, expect_positive
from ..layer import Layer, TiedParams, expect_layer
from ..linear import broadcast, broadcast_t
from .norm import expect_norm, standardise_apply, standardise_fwd, wide


class BatchNormParams(NamedTuple):
    """scale, offset: (n,); mean, var: (n,), the frozen statistics, or both None to use those of the batch."""

    scale: Array
    offset: Array
    mean: Array | None = None
    var: Array | None = None


def _but_last(x) -> tuple[int, ...]:
    return tuple(range(x.ndim - 1))


def _frozen(params, eps):
    """(mean, 1 / sqrt(var + eps)), the frozen ones."""
    return wide(params.mean), lax.rsqrt(wide(params.var) + eps)


def batch_norm_apply(params, x, eps):
    """y = scale (x - mean) / sqrt(var + eps) + offset; mean and var of x over all axes but the last, unless frozen."""
    v = wide(x)
    if params.mean is None:
        y = standardise_apply(v, _but_last(x), eps)
    else:
        mean, one_over_s = _frozen(params, eps)
        y = (v - broadcast(mean, x.shape)) * broadcast(one_over_s, x.shape)
    return (y * broadcast(wide(params.scale), x.shape) + broadcast(wide(params.offset), x.shape)).astype(x.dtype)


def batch_norm_fwd(params, x, eps):
    v = wide(x)
    if params.mean is None:
        y, (mean, one_over_s) = standardise_fwd(v, _but_last(x), eps)
    else:
        mean, one_over_s = _frozen(params, eps)
        y = (v - broadcast(mean, x.shape)) * broadcast(one_over_s, x.shape)
    y = (y * broadcast(wide(params.scale), x.shape) + broadcast(wide(params.offset), x.shape)).astype(x.dtype)
    return y, (params, x, mean, one_over_s)


def batch_norm_bwd(residuals, ct_y):
    params, x, mean, one_over_s = residuals
    ct_y, shape, dtype = wide(ct_y), x.shape, x.dtype
    y = (wide(x) - broadcast(mean, shape)) * broadcast(one_over_s, shape)
    # scale and offset were copied to every example: their cotangents are sums over the examples
    ct_scale, ct_offset = broadcast_t(ct_y * y, params.scale.shape), broadcast_t(ct_y, params.scale.shape)
    slope = wide(params.scale) * one_over_s.reshape(params.scale.shape)
    if params.mean is not None:  # frozen: x -> y is diagonal, and mean and var were copied to every example too
        ct_mean, ct_var = -slope * ct_offset, -0.5 * slope * one_over_s * ct_scale
        cts = BatchNormParams(*(ct.astype(dtype) for ct in (ct_scale, ct_offset, ct_mean, ct_var)))
        return cts, (broadcast(slope, shape) * ct_y).astype(dtype)
    # The symmetric Jacobian of `norm`, whose two sums over the batch are those of offset and scale.
    n = max(x.size // x.shape[-1], 1)
    ct_x = ct_y - broadcast(ct_offset / n, shape) - y * broadcast(ct_scale / n, shape)
    return BatchNormParams(ct_scale.astype(dtype), ct_offset.astype(dtype)), (broadcast(slope, shape) * ct_x).astype(dtype)


def batch_norm(n: int, *, eps: float = 1e-5) -> Layer:
    """y = scale (x - mean) / sqrt(var + eps) + offset.  x, y: (batch, ..., n); scale, offset, mean, var: (n,).

    With mean and var None (as `init` makes them) they are those of x over all axes but the last, var with 1/n: training.
    With mean and var given they are frozen: inference. `calibrate` gives them; nothing is kept between calls. Frozen
    statistics are parameters and have their true cotangents, so leave them out of the optimizer when you train on.
    Ioffe and Szegedy 2015, algorithms 1 and 2.  Raises TypeError and ValueError for params or x of another kind, shape or
    dtype, and where only one of mean and var is given.
    """
    expect_positive("batch_norm", n=n)

    def checked(params, x):
        expect_norm("batch_norm", n, params, x, BatchNormParams, least=2)
        if (params.mean is None) != (params.var is None):
            given = "var" if params.mean is None else "mean"
            raise ValueError(f"batch_norm: mean and var must both be given or both be None, got {given} alone; "
                             "nnjax.calibrate gives both.")  # fmt: skip
        return params, x

    return Layer(
        f"batch_norm({n})",
        lambda key: BatchNormParams(jnp.ones((n,), jnp.float32), jnp.zeros((n,), jnp.float32)),
        lambda params, x, *, key=None: batch_norm_apply(*checked(params, x), eps),
        lambda params, x, *, key=None: batch_norm_fwd(*checked(params, x), eps),
        batch_norm_bwd,
    )


def calibrate(model: Layer, params: Any, batches: Iterable[Any]) -> Any:
    """params, with mean and var of every batch_norm inside `model` filled in from the activations of `batches`.

    Layer by layer, in the order in which they act: the first batch_norm is given the statistics of what reaches it over all
    batches together, and from there on it is frozen, so that the next one sees what it will see at inference. Statistics
    that were there already are replaced. Without a key: dropout does nothing. All batches' activations at one layer are held
    at a time.  batches: inputs of the model, without labels.
    Raises ValueError for no batches, and for a composition that is none of those in `nnjax.layer`.
    """
    expect_layer("calibrate", model)
    xs = list(batches)
    if not xs:
        raise ValueError("calibrate: expected at least one batch, got none; pass inputs of the model, e.g. [x].")
    return _through(model, params, xs)[0]


def _has_batch_norm(layer: Layer) -> bool:
    return layer.name.startswith("batch_norm(") or any(map(_has_batch_norm, layer.parts))


def _through(layer: Layer, params: Any, xs: list) -> tuple[Any, list]:
    """(params with statistics, the layer's outputs for every x)."""
    if layer.name.startswith("batch_norm("):
        params = params._replace(**_statistics(xs, params.scale.dtype))
    elif _has_batch_norm(layer):
        return _through_parts(layer, params, xs)
    return params, [layer.apply(params, x) for x in xs]


def _through_parts(layer: Layer, params: Any, xs: list) -> tuple[Any, list]:
    parts = layer.parts
    if layer.name == "residual":
        params, ys = _through(parts[0], params, xs)
        return params, [x + y for x, y in zip(xs, ys)]
    if layer.name == "parallel":
        pairs = [_through(part, p, xs) for part, p in zip(parts, params)]
        return tuple(p for p, _ in pairs), list(zip(*(ys for _, ys in pairs)))
    if layer.name == "scan_layers":
        rows = []
        for i in range(len(jax.tree.leaves(params)[0])):
            row, xs = _through(parts[0], jax.tree.map(lambda p, i=i: p[i], params), xs)
            rows.append(row)
        return jax.tree.map(lambda *ps: jnp.stack(ps), *rows), xs
    if isinstance(params, TiedParams):
        _, xs = _through(parts[0], params.table, xs)
        body, xs = _through(parts[1], params.body, xs)
        return TiedParams(params.table, body), _through(parts[2], params.table, xs)[1]
    if not isinstance(params, tuple) or len(params) != len(parts):
        raise ValueError(f"calibrate: {layer.name} has {len(parts)} parts but params are {describe(params)}, so it is no "
                         "serial; compose the model of nnjax.serial, residual, parallel, scan_layers and tied.")  # fmt: skip
    found = []
    for part, p in zip(parts, params):  # a serial, whatever its name
        p, xs = _through(part, p, xs)
        found.append(p)
    return tuple(found), xs


def _statistics(xs: list, dtype: Any) -> dict[str, Array]:
    """Mean and variance (with 1/n) over all batches, all axes but the last; in two passes, so that nothing cancels."""
    count = sum(x.size // x.shape[-1] for x in xs)
    if not count:
        raise ValueError("calibrate: the batches hold no example, so they have no statistics; pass some inputs.")
    mean = jnp.stack([wide(x).sum(_but_last(x)) for x in xs]).sum(0) / count
    centred = [wide(x) - broadcast(mean, x.shape) for x in xs]
    var = jnp.stack([(c * c).sum(_but_last(c)) for c in centred]).sum(0) / count
    return {"mean": mean.astype(dtype), "var": var.astype(dtype)}
