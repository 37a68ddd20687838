"""Activations: maps without parameters. All except softmax and log_softmax work entry by entry.

The Jacobian of an entrywise map is diagonal, and a diagonal matrix is its own transpose: that is why the backward of an
activation is a plain product, ct_x = ct_y * f'(x), without a `.T`.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..errors import expect_flag, expect_float, expect_params, real_number
from ..layer import Layer
from ..leaf import Like, leaf
from ..linear import broadcast, wide


def _activation(
    name: str, apply: Callable[..., Any], fwd: Callable[..., Any], bwd: Callable[..., Any], axis: int | None = None
) -> Layer[Array]:
    """The Layer of three functions of only x; `axis=-1` requires at least one axis."""

    def checked(params, x):
        expect_params(name, params, tuple)
        expect_float(name, "x", x)
        if axis is not None and x.ndim < 1:
            raise ValueError(f"{name}: x must have at least one axis to normalise over, got a scalar; pass shape (..., n).")
        return x

    def output(residuals):  # residuals have the shape of y, and its dtype unless they are flags
        (kept,) = residuals
        return Like(kept.shape, kept.dtype if jnp.issubdtype(kept.dtype, jnp.floating) else None)

    return leaf(
        name,
        lambda key: (),
        lambda params, x, *, key=None: apply(checked(params, x)),
        lambda params, x, *, key=None: fwd(checked(params, x)),
        lambda residuals, ct_y: ((), bwd(residuals, ct_y)),
        output,
    )


def sigmoid_apply(x: Array) -> Array:
    """y = 1 / (1 + exp(-x)), without overflow."""
    return jax.nn.sigmoid(x)


def sigmoid_fwd(x: Array) -> Any:
    y = sigmoid_apply(x)
    return y, (y,)


def sigmoid_bwd(residuals: Any, ct_y: Array) -> Any:
    (y,) = residuals
    return ct_y * (y * (1 - y))


def sigmoid() -> Layer[Array]:
    """y = 1 / (1 + exp(-x)).  x, y: any shape."""
    return _activation("sigmoid", sigmoid_apply, sigmoid_fwd, sigmoid_bwd)


def tanh_apply(x: Array) -> Array:
    """y = tanh(x)."""
    return jnp.tanh(x)


def tanh_fwd(x: Array) -> Any:
    y = tanh_apply(x)
    return y, (y,)


def tanh_bwd(residuals: Any, ct_y: Array) -> Any:
    (y,) = residuals
    return ct_y * ((1 - y) * (1 + y))


def tanh() -> Layer[Array]:
    """y = tanh(x).  x, y: any shape."""
    return _activation("tanh", tanh_apply, tanh_fwd, tanh_bwd)


def relu_apply(x: Array) -> Array:
    """y = 0 where x <= 0, else x, so NaN stays NaN.  relu'(0) = 0."""
    return jnp.where(x <= 0, jnp.zeros_like(x), x)


def relu_fwd(x: Array) -> Any:
    return relu_apply(x), (x <= 0,)


def relu_bwd(residuals: Any, ct_y: Array) -> Any:
    (off,) = residuals
    return jnp.where(off, jnp.zeros_like(ct_y), ct_y)


def relu() -> Layer[Array]:
    """y = max(x, 0), with relu'(0) = 0.  x, y: any shape."""
    return _activation("relu", relu_apply, relu_fwd, relu_bwd)


def leaky_relu_apply(x: Array, slope: Any) -> Array:
    """y = x where x > 0, else slope x.  The derivative at 0 is `slope`."""
    return jnp.where(x > 0, x, slope * x)


def leaky_relu_fwd(x: Array, slope: Any) -> Any:
    return leaky_relu_apply(x, slope), (x > 0,)


def leaky_relu_bwd(residuals: Any, ct_y: Array, slope: Any) -> Any:
    (positive,) = residuals
    return jnp.where(positive, ct_y, slope * ct_y)


def leaky_relu(slope: float = 0.01) -> Layer[Array]:
    """y = x where x > 0, else slope x; the derivative at 0 is `slope`.  x, y: any shape.

    Raises ValueError for a slope that is not a finite number.
    """
    number = real_number(slope)
    if number is None or not math.isfinite(number):
        raise ValueError(f"leaky_relu: slope must be a finite number, got {slope!r}; 0.01 is usual.")
    slope = number
    return _activation(
        f"leaky_relu({slope})",
        lambda x: leaky_relu_apply(x, slope),
        lambda x: leaky_relu_fwd(x, slope),
        lambda residuals, ct_y: leaky_relu_bwd(residuals, ct_y, slope),
    )


def elu_apply(x: Array) -> Array:
    """y = x where x > 0, else exp(x) - 1.  The derivative at 0 is 1."""
    return jnp.where(x > 0, x, jnp.expm1(jnp.where(x > 0, jnp.zeros_like(x), x)))


def elu_fwd(x: Array) -> Any:
    return elu_apply(x), (x,)


def elu_bwd(residuals: Any, ct_y: Array) -> Any:
    (x,) = residuals  # y would suffice, as exp(x) = y + 1, but far below zero that sum loses every digit of exp(x)
    return ct_y * jnp.exp(jnp.where(x > 0, jnp.zeros_like(x), x))


def elu() -> Layer[Array]:
    """y = x where x > 0, else exp(x) - 1.  x, y: any shape.  Clevert et al. 2016, eq. 15 with alpha = 1."""
    return _activation("elu", elu_apply, elu_fwd, elu_bwd)


# Beyond this, in every dtype, the slope is 0 or 1 to the last digit, while the numbers that it is made of are still finite.
GELU_FAR, SILU_FAR = 64.0, 1000.0


def _relu_beyond(far, f, x):
    """f(x), but max(x, 0) where |x| > far: at -inf, f would be -inf times 0."""
    beyond = jnp.abs(x) > far
    return jnp.where(beyond, relu_apply(x), f(jnp.where(beyond, jnp.zeros_like(x), x)))


def gelu_apply(x: Array) -> Array:
    """y = x P(x), with P the distribution function of the standard normal: P(x) = erfc(-x / sqrt 2) / 2."""
    return _relu_beyond(GELU_FAR, lambda x: x * (0.5 * lax.erfc(-x * math.sqrt(0.5))), x)


def gelu_fwd(x: Array) -> Any:
    return gelu_apply(x), (x,)


def gelu_bwd(residuals: Any, ct_y: Array) -> Any:
    (x,) = residuals
    x = jnp.clip(x, -GELU_FAR, GELU_FAR)
    density = jnp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return ct_y * (0.5 * lax.erfc(-x * math.sqrt(0.5)) + x * density)


GELU_SCALE, GELU_CUBIC = math.sqrt(2 / math.pi), 0.044715


def gelu_tanh_apply(x: Array) -> Array:
    """y = x (1 + tanh(u)) / 2,  u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    return _relu_beyond(GELU_FAR, lambda x: x * (0.5 * (1 + jnp.tanh(GELU_SCALE * x * (1 + GELU_CUBIC * x * x)))), x)


def gelu_tanh_fwd(x: Array) -> Any:
    return gelu_tanh_apply(x), (x,)


def gelu_tanh_bwd(residuals: Any, ct_y: Array) -> Any:
    (x,) = residuals
    x = jnp.clip(x, -GELU_FAR, GELU_FAR)  # else, far out, 0 times an overflowed slope of u
    t = jnp.tanh(GELU_SCALE * x * (1 + GELU_CUBIC * x * x))
    du = GELU_SCALE * (1 + 3 * GELU_CUBIC * x * x)
    return ct_y * (0.5 * (1 + t) + x * (0.5 * (1 - t) * (1 + t)) * du)


def gelu(approximate: bool = False) -> Layer[Array]:
    """y = x P(x), with P the standard normal distribution function, or its tanh approximation.

    x, y: any shape.  Hendrycks and Gimpel 2016, eq. 1 and 2.
    """
    expect_flag("gelu", approximate=approximate)
    if approximate:
        return _activation("gelu(tanh)", gelu_tanh_apply, gelu_tanh_fwd, gelu_tanh_bwd)
    return _activation("gelu", gelu_apply, gelu_fwd, gelu_bwd)


def silu_apply(x: Array) -> Array:
    """y = x sigmoid(x)."""
    return _relu_beyond(SILU_FAR, lambda x: x * jax.nn.sigmoid(x), x)


def silu_fwd(x: Array) -> Any:
    return silu_apply(x), (x,)


def silu_bwd(residuals: Any, ct_y: Array) -> Any:
    (x,) = residuals
    x = jnp.clip(x, -SILU_FAR, SILU_FAR)
    s = jax.nn.sigmoid(x)
    return ct_y * (s + x * (s * (1 - s)))


def silu() -> Layer[Array]:
    """y = x sigmoid(x).  x, y: any shape."""
    return _activation("silu", silu_apply, silu_fwd, silu_bwd)


def softplus_apply(x: Array) -> Array:
    """y = log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)), so that nothing overflows."""
    minus_abs = jnp.where(x > 0, -x, x)
    return jnp.where(x > 0, x, jnp.zeros_like(x)) + jnp.log1p(jnp.exp(minus_abs))


def softplus_fwd(x: Array) -> Any:
    return softplus_apply(x), (x,)


def softplus_bwd(residuals: Any, ct_y: Array) -> Any:
    (x,) = residuals
    return ct_y * jax.nn.sigmoid(x)


def softplus() -> Layer[Array]:
    """y = log(1 + exp(x)).  x, y: any shape."""
    return _activation("softplus", softplus_apply, softplus_fwd, softplus_bwd)


def _shifted(x):
    # The shift cancels in the value, so its derivative is zero and is not computed.
    return x - broadcast(lax.stop_gradient(x.max(-1, keepdims=True, initial=-jnp.inf)), x.shape)


def _shares(x):
    e = jnp.exp(_shifted(x)).astype(wide(x))
    return e / broadcast(e.sum(-1, keepdims=True), x.shape)


def softmax_apply(x: Array) -> Array:
    """y = exp(x) / sum exp(x) over the last axis, shifted by the maximum so that nothing overflows."""
    return _shares(x).astype(x.dtype)


def softmax_fwd(x: Array) -> Any:
    y = softmax_apply(x)
    return y, (y if y.dtype == wide(x) else x,)  # a y rounded to 1 has lost the share of the others


def softmax_bwd(residuals: Any, ct_y: Array) -> Any:
    (kept,) = residuals
    y = kept if kept.dtype == wide(kept) else _shares(kept)
    ct = ct_y.astype(y.dtype)
    # J = diag(y) - y yᵀ is symmetric: it is its own transpose
    return (y * (ct - broadcast((y * ct).sum(-1, keepdims=True), y.shape))).astype(ct_y.dtype)


def softmax() -> Layer[Array]:
    """y = exp(x) / sum exp(x) over the last axis.  x, y: (..., n).  Raises ValueError for a scalar x."""
    return _activation("softmax", softmax_apply, softmax_fwd, softmax_bwd, axis=-1)


def log_softmax_apply(x: Array) -> Array:
    """y = x - log sum exp(x) over the last axis, shifted by the maximum so that nothing overflows."""
    shifted = _shifted(x).astype(wide(x))
    return (shifted - broadcast(jnp.log(jnp.exp(shifted).sum(-1, keepdims=True)), x.shape)).astype(x.dtype)


def log_softmax_fwd(x: Array) -> Any:
    y = log_softmax_apply(x)
    return y, (y,)


def log_softmax_bwd(residuals: Any, ct_y: Array) -> Any:
    (y,) = residuals  # J = I - 1 pᵀ with p = softmax(x), so Jᵀ = I - p 1ᵀ: here the transpose does swap the two
    y, ct = y.astype(wide(y)), ct_y.astype(wide(ct_y))
    return (ct - jnp.exp(y) * broadcast(ct.sum(-1, keepdims=True), y.shape)).astype(ct_y.dtype)


def log_softmax() -> Layer[Array]:
    """y = x - log sum exp(x) over the last axis.  x, y: (..., n).  Raises ValueError for a scalar x."""
    return _activation("log_softmax", log_softmax_apply, log_softmax_fwd, log_softmax_bwd, axis=-1)
