"""The dense layer: an affine map on row vectors."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ..errors import (
    describe,
    expect_flag,
    expect_float,
    expect_init,
    expect_params,
    expect_positive,
    expect_same_dtype,
    expect_shape,
)
from ..fast.choose import by_platform
from ..fast.cpu.product import adjoint
from ..feedback import expect_operator, transpose
from ..layer import Layer
from ..leaf import Like, leaf
from ..linear import broadcast, broadcast_t, fold
from .mirrored import carried_by


class DenseParams(NamedTuple):
    """w: (n_in, n_out), b: (n_out,) or None. See `dense`."""

    w: Array
    b: Array | None

    WEIGHTS = ("w",)


def _expect_dense(params, x) -> None:
    expect_params("dense", params, DenseParams)
    expect_float("dense", "w", params.w)
    expect_float("dense", "x", x)
    if params.w.ndim != 2:
        raise ValueError(f"dense: w must have shape (n_in, n_out), got {describe(params.w)}; make it with layer.init(key).")
    if params.b is not None:
        expect_shape("dense", "b", params.b, params.w.shape[1:])
        expect_same_dtype("dense", "b", params.b, "w", params.w)
    n_in = params.w.shape[0]
    if x.ndim < 1 or x.shape[-1] != n_in:
        raise ValueError(
            f"dense: x must have {n_in} features in its last axis, as w has {n_in} rows, got {describe(x)}; "
            f"pass x of shape (..., {n_in}), or make the layer with as many inputs as x has features."
        )
    expect_same_dtype("dense", "x", x, "w", params.w)


def dense_apply(params: Any, x: Array, *, key: Any = None) -> Array:
    """y = x W + b.  x: (..., n_in), W: (n_in, n_out), b: (n_out,), y: (..., n_out).

    Raises TypeError if params are not DenseParams or x is not real floating point of W's dtype, ValueError if x does not have
    as many features as W has rows.
    """
    _expect_dense(params, x)
    y = x @ params.w
    return y if params.b is None else y + broadcast(params.b, y.shape)


def dense_fwd(params: Any, x: Array, *, key: Any = None) -> Any:
    return dense_apply(params, x), (params, x)


def dense_bwd(
    residuals: Any, ct_y: Array, *, feedback: Callable[..., Any] = transpose, product: Callable[..., Any] = jnp.matmul
) -> Any:
    params, x = residuals
    # feedback(w) is w.T: forward, output j summed down column j of W; backward, input i sums along row i.
    ct_x = ct_y @ feedback(params.w)
    ct_w = product(fold(x).T, fold(ct_y))  # the adjoint of W -> x W
    ct_b = None if params.b is None else broadcast_t(ct_y, params.b.shape)  # b is copied to every row: sum over them
    return DenseParams(ct_w, ct_b), ct_x


def fast_product(x_t: Array, ct_y: Array) -> Array:
    """x_t ct_y in the spelling of the platform: the product that gives the gradient of W."""
    return by_platform(x_t, ct_y, plain=jnp.matmul, cpu=adjoint)


def _output(residuals):
    params, x = residuals
    return Like((*x.shape[:-1], params.w.shape[1]), x.dtype)


def dense(
    n_in: int,
    n_out: int,
    *,
    bias: bool = True,
    init: Callable[..., Array] | None = None,
    feedback: Callable[[Array], Array] = transpose,
) -> Layer[Array]:
    """y = x W + b, with W: (n_in, n_out) and b: (n_out,), or without b (`bias=False`).

    init(key, shape, dtype) makes W: by default Glorot's uniform distribution, variance 2 / (n_in + n_out)
    (Glorot and Bengio 2010, eq. 16); b starts at zero. feedback(W) is the matrix that sends the error back; only the
    transpose gives the gradient (see `nnjax.feedback`).
    Raises ValueError for sizes that are not positive ints, TypeError for an init or feedback that is not a function.

    >>> layer = nnjax.dense(4, 3)
    >>> params = layer.init(jax.random.key(0))
    >>> y, residuals = layer.fwd(params, jnp.ones((5, 4)))
    >>> ct_params, ct_x = layer.bwd(residuals, jnp.ones((5, 3)))
    >>> y.shape, ct_params.w.shape, ct_x.shape
    ((5, 3), (4, 3), (5, 4))
    """
    n_in, n_out = expect_positive("dense", n_in=n_in, n_out=n_out)
    init = jax.nn.initializers.glorot_uniform() if init is None else init
    expect_init("dense", init)
    expect_flag("dense", bias=bias)
    expect_operator("dense", feedback)

    def init_params(key):
        w = init(key, (n_in, n_out), jnp.float32)
        return DenseParams(w, jnp.zeros((n_out,), w.dtype) if bias else None)

    fast = dense_fwd, partial(dense_bwd, product=fast_product)
    layer = leaf(f"dense({n_in}, {n_out})", init_params, dense_apply, dense_fwd, dense_bwd, _output, fast=fast)
    return layer if feedback is transpose else carried_by(feedback, layer, dense_bwd, _output)
