"""Normalisations inside anyone's `jax.grad`."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from .. import layers
from ..errors import expect_float, expect_not_negative, expect_positive
from ..layer import as_custom_vjp
from ..layers.norm import NormParams
from ..trees.varying import together
from .remembered import remembered

_called = remembered(lambda make, *args, eps: as_custom_vjp(make(*args, eps=eps)))


def _features(who: str, x: Array) -> int:
    expect_float(who, "x", x)
    if not x.ndim:
        raise ValueError(f"{who}: x must have shape (..., n), got a single number; add an axis with x[None].")
    return x.shape[-1]


def _norm(make: Any, kind: Any, x: Array, *args: int, scale: Any, offset: Any, eps: float, **statistics: Any) -> Array:
    """make(*args, n)(params, x), a scale that is not given being 1, an offset 0."""
    scale = jnp.ones_like(x, shape=x.shape[-1:]) if scale is None else scale
    if offset is None and make is not layers.rms_norm:
        offset = jnp.zeros_like(x, shape=x.shape[-1:])
    (eps,) = expect_not_negative(f"ops.{make.__name__}", eps=eps)
    f = _called(make, *args, x.shape[-1], eps=eps)
    return f(*together((kind(scale, offset, **statistics), x)))


def layer_norm(x: Array, scale: Array | None = None, offset: Array | None = None, *, eps: float = 1e-5) -> Array:
    """y = scale (x - mean) / sqrt(variance + eps) + offset, over the last axis: `nnjax.layer_norm` with scale and offset given.

    x, y: (..., n); scale, offset: (n,), left out 1 and 0. What is kept for the backward is x, and two numbers for each row.
    Raises as `nnjax.layer_norm` does.

    >>> x = jnp.arange(8.0).reshape(2, 4)
    >>> float(jax.grad(lambda x: nnjax.ops.layer_norm(x)[0, 0])(x).sum().round(5))  # no cotangent comes back along 1
    0.0
    """
    _features("ops.layer_norm", x)
    return _norm(layers.layer_norm, NormParams, x, scale=scale, offset=offset, eps=eps)


def rms_norm(x: Array, scale: Array | None = None, *, eps: float = 1e-5) -> Array:
    """y = scale x / sqrt(mean(x^2) + eps), over the last axis: `nnjax.rms_norm` with the scale given.

    x, y: (..., n); scale: (n,), left out 1. What is kept for the backward is x, and one number for each row.
    Raises as `nnjax.rms_norm` does.

    >>> nnjax.ops.rms_norm(jnp.array([[3.0, -3.0]])).round(3).tolist()
    [[1.0, -1.0]]
    """
    _features("ops.rms_norm", x)
    return _norm(layers.rms_norm, NormParams, x, scale=scale, offset=None, eps=eps)


def group_norm(x: Array, groups: int, scale: Array | None = None, offset: Array | None = None, *, eps: float = 1e-5) -> Array:
    """y = scale (x - mean) / sqrt(variance + eps) + offset, over space and the channels of each group: `nnjax.group_norm`.

    x, y: (batch, ..., n), channels last; scale, offset: (n,), left out 1 and 0.  Raises as `nnjax.group_norm` does.

    >>> nnjax.ops.group_norm(jnp.ones((2, 5, 5, 6)), 3).shape
    (2, 5, 5, 6)
    """
    _features("ops.group_norm", x)
    (groups,) = expect_positive("ops.group_norm", groups=groups)
    return _norm(layers.group_norm, NormParams, x, groups, scale=scale, offset=offset, eps=eps)


def batch_norm(
    x: Array,
    scale: Array | None = None,
    offset: Array | None = None,
    mean: Array | None = None,
    var: Array | None = None,
    *,
    eps: float = 1e-5,
) -> Array:
    """y = scale (x - mean) / sqrt(var + eps) + offset, with the batch's mean and variance, or those given.

    x, y: (batch, ..., n), channels last; scale, offset, mean, var: (n,). Given statistics have cotangents of their own.
    Raises as `nnjax.batch_norm` does.

    >>> nnjax.ops.batch_norm(jnp.array([[1.0], [3.0]])).round(3).tolist()
    [[-1.0], [1.0]]
    """
    _features("ops.batch_norm", x)
    return _norm(layers.batch_norm, layers.BatchNormParams, x, scale=scale, offset=offset, mean=mean, var=var, eps=eps)
