"""Layer, RMS and group normalisation: give each example mean 0 and variance 1 over some of its entries.

The Jacobian of x -> x̂ = (x - mean) / s over n entries is (I - 1 1ᵀ/n - x̂ x̂ᵀ/n) / s. It is symmetric, so it is its own
transpose, and a projection except for the factor 1/s: changes of the mean or the length of x do not reach x̂, and no
cotangent comes back along these two directions.

Sums and means are taken in float32 at least, whatever x is.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..errors import (
    describe,
    expect_float,
    expect_not_negative,
    expect_params,
    expect_positive,
    expect_same_dtype,
    expect_shape,
)
from ..layer import Layer
from ..leaf import leaf
from ..linear import broadcast, broadcast_t, fold, widened


class NormParams(NamedTuple):
    """scale, offset: (n,); offset is None for rms_norm."""

    scale: Array
    offset: Array | None

    WEIGHTS = ()


def mean_over(x: Array, axes: Any) -> Array:
    """x.mean(axes, keepdims=True). Over the last axis as a product with ones: on CPUs XLA's sums along rows take
    longer (bench case `layer_norm`)."""
    if axes != -1:
        return x.mean(axes, keepdims=True)
    n = x.shape[-1]
    sums = jnp.matmul(fold(x), jnp.ones_like(x, shape=(n, 1)), precision=lax.Precision.HIGHEST)
    return (sums / n).reshape(*x.shape[:-1], 1)


def standardise_apply(x: Array, axes: Any, eps: float) -> Array:
    """x̂ = (x - mean) / s,  s = sqrt(variance + eps), over `axes`; variance = mean of (x - mean)^2."""
    centred = x - broadcast(x.mean(axes, keepdims=True), x.shape)
    return centred * broadcast(lax.rsqrt((centred * centred).mean(axes, keepdims=True) + eps), x.shape)


def standardise_fwd(x: Array, axes: Any, eps: float) -> Any:
    mean = mean_over(x, axes)
    centred = x - broadcast(mean, x.shape)
    one_over_s = lax.rsqrt(mean_over(centred * centred, axes) + eps)
    return centred * broadcast(one_over_s, x.shape), (mean, one_over_s)


def standardise_bwd(y: Array, one_over_s: Any, ct_y: Array, axes: Any) -> Any:
    """ct_x = (ct_y - mean(ct_y) - x̂ mean(ct_y x̂)) / s: the symmetric Jacobian, applied to ct_y."""
    along_one, along_y = mean_over(ct_y, axes), mean_over(ct_y * y, axes)
    ct_x = ct_y - broadcast(along_one, y.shape) - y * broadcast(along_y, y.shape)
    return ct_x * broadcast(one_over_s, y.shape)


def expect_norm(name: str, n: int, params: Any, x: Array, kind: type = NormParams, least: int = 1) -> None:
    """Raise unless params are `kind` with arrays of shape (n,), and x has n features, `least` axes and their dtype."""
    expect_params(name, params, kind)
    for field, p in zip(params._fields, params):
        if p is not None:
            expect_float(name, field, p)
            expect_shape(name, field, p, (n,))
            expect_same_dtype(name, field, p, "scale", params.scale)
    expect_float(name, "x", x)
    if x.ndim < least or x.shape[-1] != n:
        shape = ("...", "batch, ...")[least - 1]
        raise ValueError(f"{name}: x must have shape ({shape}, {n}), got {describe(x)}; make the layer with as many features "
                         "as x has in its last axis.")  # fmt: skip
    expect_same_dtype(name, "x", x, "scale", params.scale)


def layer_norm_apply(params: Any, x: Array, eps: float) -> Array:
    """y = scale x̂ + offset, x̂ = (x - mean) / sqrt(variance + eps) over the last axis."""
    y = standardise_apply(widened(x), -1, eps)
    y = y * broadcast(widened(params.scale), x.shape) + broadcast(widened(params.offset), x.shape)
    return y.astype(x.dtype)


def layer_norm_fwd(params: Any, x: Array, eps: float) -> Any:
    y, (mean, one_over_s) = standardise_fwd(widened(x), -1, eps)
    y = y * broadcast(widened(params.scale), x.shape) + broadcast(widened(params.offset), x.shape)
    return y.astype(x.dtype), (params.scale, x, mean, one_over_s)


def layer_norm_bwd(residuals: Any, ct_y: Array) -> Any:
    scale, x, mean, one_over_s = residuals
    ct_y, shape = widened(ct_y), x.shape
    y = (widened(x) - broadcast(mean, shape)) * broadcast(one_over_s, shape)
    ct_x = standardise_bwd(y, one_over_s, ct_y * broadcast(widened(scale), shape), -1)
    # scale and offset are copied to every row: their cotangents are sums over the rows
    ct_scale, ct_offset = broadcast_t(ct_y * y, scale.shape), broadcast_t(ct_y, scale.shape)
    return NormParams(ct_scale.astype(x.dtype), ct_offset.astype(x.dtype)), ct_x.astype(x.dtype)


def layer_norm(n: int, *, eps: float = 1e-5) -> Layer[Array]:
    """y = scale (x - mean) / sqrt(variance + eps) + offset, over the last axis.  x, y: (..., n); scale, offset: (n,).

    Ba et al. 2016, eq. 4.  Raises TypeError and ValueError for params or x of another kind, shape or dtype.
    """
    (n,), (eps,) = expect_positive("layer_norm", n=n), expect_not_negative("layer_norm", eps=eps)

    def checked(params, x):
        expect_norm("layer_norm", n, params, x)
        return params, x

    return leaf(
        f"layer_norm({n})",
        lambda key: NormParams(jnp.ones((n,), jnp.float32), jnp.zeros((n,), jnp.float32)),
        lambda params, x, *, key=None: layer_norm_apply(*checked(params, x), eps),
        lambda params, x, *, key=None: layer_norm_fwd(*checked(params, x), eps),
        layer_norm_bwd,
        lambda residuals: residuals[1],  # x: y is like it
    )


def rms_norm_apply(params: Any, x: Array, eps: float) -> Array:
    """y = scale x / s,  s = sqrt(mean(x^2) + eps) over the last axis."""
    v = widened(x)
    y = v * broadcast(lax.rsqrt((v * v).mean(-1, keepdims=True) + eps), x.shape)
    return (y * broadcast(widened(params.scale), x.shape)).astype(x.dtype)


def rms_norm_fwd(params: Any, x: Array, eps: float) -> Any:
    v = widened(x)
    one_over_s = lax.rsqrt(mean_over(v * v, -1) + eps)
    y = v * broadcast(one_over_s, x.shape) * broadcast(widened(params.scale), x.shape)
    return y.astype(x.dtype), (params.scale, x, one_over_s)


def rms_norm_bwd(residuals: Any, ct_y: Array) -> Any:
    scale, x, one_over_s = residuals
    ct_y, shape = widened(ct_y), x.shape
    v = widened(x)
    y = v * broadcast(one_over_s, shape)
    ct = ct_y * broadcast(widened(scale), shape)
    along = mean_over(ct * v, -1) * one_over_s  # with x, not ŷ, so that it needs no second pass after that over x^2
    ct_x = ct - y * broadcast(along, shape)  # J = (I - ŷ ŷᵀ/n) / s is symmetric
    ct_scale = broadcast_t(ct_y * y, scale.shape)  # scale is copied to every row: a sum over the rows
    return NormParams(ct_scale.astype(x.dtype), None), (ct_x * broadcast(one_over_s, shape)).astype(x.dtype)


def rms_norm(n: int, *, eps: float = 1e-5) -> Layer[Array]:
    """y = scale x / sqrt(mean(x^2) + eps), over the last axis.  x, y: (..., n); scale: (n,).

    Zhang and Sennrich 2019, eq. 4.  Raises TypeError and ValueError for params or x of another kind, shape or dtype.
    """
    (n,), (eps,) = expect_positive("rms_norm", n=n), expect_not_negative("rms_norm", eps=eps)

    def checked(params, x):
        expect_norm("rms_norm", n, params, x)
        return params, x

    return leaf(
        f"rms_norm({n})",
        lambda key: NormParams(jnp.ones((n,), jnp.float32), None),
        lambda params, x, *, key=None: rms_norm_apply(*checked(params, x), eps),
        lambda params, x, *, key=None: rms_norm_fwd(*checked(params, x), eps),
        rms_norm_bwd,
        lambda residuals: residuals[1],  # x: y is like it
    )


GROUP_AXES = (1, 3)  # of (batch, space, groups, n / groups)


def _grouped(x, groups):
    space = int(np.prod(x.shape[1:-1]))
    return x.reshape(x.shape[0], space, groups, x.shape[-1] // groups)


def group_norm_apply(params: Any, x: Array, groups: int, eps: float) -> Array:
    """y = scale x̂ + offset, x̂ = (x - mean) / sqrt(variance + eps) over all of space and the channels of a group."""
    y = standardise_apply(_grouped(widened(x), groups), GROUP_AXES, eps).reshape(x.shape)
    y = y * broadcast(widened(params.scale), x.shape) + broadcast(widened(params.offset), x.shape)
    return y.astype(x.dtype)


def group_norm_fwd(params: Any, x: Array, groups: int, eps: float) -> Any:
    y, (mean, one_over_s) = standardise_fwd(_grouped(widened(x), groups), GROUP_AXES, eps)
    y = y.reshape(x.shape) * broadcast(widened(params.scale), x.shape) + broadcast(widened(params.offset), x.shape)
    return y.astype(x.dtype), (params.scale, x, mean, one_over_s)


def group_norm_bwd(residuals: Any, ct_y: Array) -> Any:
    scale, x, mean, one_over_s = residuals
    groups = mean.shape[2]
    v, ct_y = _grouped(widened(x), groups), widened(ct_y)
    y = (v - broadcast(mean, v.shape)) * broadcast(one_over_s, v.shape)
    ct_normal = _grouped(ct_y * broadcast(widened(scale), x.shape), groups)
    ct_x = standardise_bwd(y, one_over_s, ct_normal, GROUP_AXES).reshape(x.shape)
    # scale and offset are copied to every example and place: their cotangents are sums over both
    ct_scale, ct_offset = broadcast_t(ct_y * y.reshape(x.shape), scale.shape), broadcast_t(ct_y, scale.shape)
    return NormParams(ct_scale.astype(x.dtype), ct_offset.astype(x.dtype)), ct_x.astype(x.dtype)


def group_norm(groups: int, n: int, *, eps: float = 1e-5) -> Layer[Array]:
    """y = scale (x - mean) / sqrt(variance + eps) + offset, for each example over space and the channels of each group.

    x, y: (batch, ..., n); scale, offset: (n,).  Group k holds channels k n/groups to (k + 1) n/groups - 1.
    Wu and He 2018, eq. 1 to 7.  Raises ValueError if groups does not divide n, TypeError and ValueError for params or x
    of another kind, shape or dtype.
    """
    (groups, n), (eps,) = expect_positive("group_norm", groups=groups, n=n), expect_not_negative("group_norm", eps=eps)
    if n % groups:
        raise ValueError(f"group_norm: groups must divide the {n} channels, got {groups} groups; "
                         f"pass one of {[d for d in range(1, n + 1) if n % d == 0]}.")  # fmt: skip

    def checked(params, x):
        expect_norm("group_norm", n, params, x, least=2)
        return params, x

    return leaf(
        f"group_norm({groups}, {n})",
        lambda key: NormParams(jnp.ones((n,), jnp.float32), jnp.zeros((n,), jnp.float32)),
        lambda params, x, *, key=None: group_norm_apply(*checked(params, x), groups, eps),
        lambda params, x, *, key=None: group_norm_fwd(*checked(params, x), groups, eps),
        group_norm_bwd,
        lambda residuals: residuals[1],  # x: y is like it
    )
