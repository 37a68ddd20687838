"""Functional forms whose hand-written backward works inside anyone's `jax.grad`, under `jit`, `vmap` and `scan`.

Each is a `jax.custom_vjp`: its value is the layer's definition, its rule the layer's pair. Forward mode raises in JAX.

>>> jax.grad(lambda x: nnjax.ops.max_pool(x, (2, 2)).sum())(jnp.ones((2, 4, 4, 3))).shape
(2, 4, 4, 3)
"""

import math
from collections.abc import Sequence
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from jax import Array

from . import layers
from .errors import describe, expect_flag, expect_float, expect_per_axis, expect_positive, expect_same_dtype, expect_shape
from .layer import as_custom_vjp
from .layers.attend import attend_apply, fast_bwd, fast_fwd
from .layers.conv import expect_padding
from .losses import fused as fused_loss
from .trees.varying import together

__all__ = ["attention", "conv", "linear_cross_entropy", "max_pool"]


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attend(q, k, v, keep, causal, kernel):
    return attend_apply(q, k, v, keep, causal=causal)


def _attend_rule(causal, kernel, residuals, ct_y):
    return (*fast_bwd(residuals, ct_y, causal=causal, kernel=kernel), None)


_attend.defvjp(lambda q, k, v, keep, causal, kernel: fast_fwd(q, k, v, keep, causal=causal, kernel=kernel), _attend_rule)


def _expect_attention(q, k, v, causal: bool, mask) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        expect_float("ops.attention", name, x)
        if x.ndim < 3 or x.shape[-3] < 1:
            raise ValueError(
                f"ops.attention: {name} must have shape (..., positions, heads, d) with at least one position, "
                f"got {describe(x)}; add the axis that is missing."
            )
    expect_same_dtype("ops.attention", "k", k, "q", q)
    expect_same_dtype("ops.attention", "v", v, "q", q)
    expect_shape("ops.attention", "v", v, k.shape)
    if k.shape[:-3] != q.shape[:-3] or k.shape[-1] != q.shape[-1] or k.shape[-2] < 1 or q.shape[-2] % k.shape[-2]:
        raise ValueError(
            "ops.attention: q and k must have the same leading axes and features, and k's heads divide q's, got q: "
            f"{describe(q)}, k: {describe(k)}; their shape is (..., positions, heads, d)."
        )
    if causal and q.shape[-3] != k.shape[-3]:
        raise ValueError(
            f"ops.attention: causal attention needs as many queries as keys, got {q.shape[-3]} and {k.shape[-3]}; "
            "pass causal=False."
        )
    if mask is not None:
        if not hasattr(mask, "dtype") or mask.dtype != jnp.bool_:
            raise TypeError(
                f"ops.attention: mask must be boolean, True where a key may be attended to, got {describe(mask)}; "
                "convert it, as in mask != 0."
            )
        expect_shape("ops.attention", "mask", mask, k.shape[:-2])


def attention(q: Array, k: Array, v: Array, *, causal: bool = True, mask: Array | None = None, kernel: bool = False) -> Array:
    """y_i = sum_j softmax_j(q_i . k_j / sqrt(d)) v_j for each head, block by block.

    q, y: (..., s, heads, d); k, v: (..., t, kv_heads, d), kv_heads a divisor of heads; causal: query i sees keys 0 ... i, and
    s = t; mask: bool (..., t), False for masked keys. A query without a visible key gives 0.
    kernel: on a GPU or TPU, use Pallas kernels forward and backward, which keep nothing of size s t. They take float32,
    bfloat16 and, on a GPU, float16, without a mask; heads of up to 256 features on a GPU, and on a TPU as many positions as
    its fast memory holds (6144 in float32, over the heads that share keys). Otherwise it has no effect. A program with
    kernels is exported for one platform at a time.
    Raises TypeError or ValueError where these do not fit.

    >>> q = k = v = jnp.ones((2, 9, 4, 8))
    >>> jax.grad(lambda q: nnjax.ops.attention(q, k, v).sum())(q).shape
    (2, 9, 4, 8)
    """
    expect_flag("ops.attention", causal=causal, kernel=kernel)
    _expect_attention(q, k, v, causal, mask)
    lead, (s, heads, d) = q.shape[:-3], q.shape[-3:]
    b, (t, h, _) = math.prod(lead), k.shape[-3:]
    q = q.reshape(b, s, h, heads // h, d).transpose(0, 2, 3, 1, 4)
    k, v = (jnp.swapaxes(x.reshape(b, t, h, d), 1, 2) for x in (k, v))
    q, k, v, keep = together((q, k, v, None if mask is None else mask.reshape(b, t)))
    y: Array = _attend(q, k, v, keep, causal, kernel)
    return y.transpose(0, 3, 1, 2, 4).reshape(*lead, s, heads, d)


_linear_cross_entropy = lru_cache(lambda kernel: as_custom_vjp(fused_loss.linear_cross_entropy(kernel=kernel)))


def linear_cross_entropy(h: Array, w: Array, labels: Array, *, weights: Array | None = None, kernel: bool = False) -> Array:
    """The (weighted) mean of -log softmax(h wᵀ)[label], in chunks of rows, so that the scores never exist all at once.

    h: (..., n), w: (vocabulary, n), labels: integers (...), weights: (...).  Raises like the loss of that name.
    kernel: on a GPU or TPU, use Pallas kernels, which form scores block by block, three times over. They take float32,
    bfloat16 and, on a GPU, float16, at least two classes, and on a TPU as many features as its fast memory holds (4096 in
    float32). Otherwise it has no effect. A program with kernels is exported for one platform at a time.

    >>> h, w, labels = jnp.zeros((2, 3)), jnp.ones((4, 3)), jnp.array([0, 3])
    >>> jax.grad(nnjax.ops.linear_cross_entropy)(h, w, labels).shape
    (2, 3)
    """
    expect_flag("ops.linear_cross_entropy", kernel=kernel)
    loss = _linear_cross_entropy(kernel)
    return loss((), together(((h, w), labels) if weights is None else ((h, w), labels, weights)))


_conv = lru_cache(lambda *args, **how: as_custom_vjp(layers.conv(*args, **how)))
_max_pool = lru_cache(lambda *args: as_custom_vjp(layers.max_pool(*args)))


def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | Sequence[int | tuple[int, int]] = "SAME",
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Array:
    """y[p] = b + sum_i w[i] x[p stride + i dilation - padding], channels last: `nnjax.conv` with w and b given.

    x: (..., width, in) and w: (k, in / groups, out), or x: (..., height, width, in) and w: (k, l, in / groups, out).
    Raises as `nnjax.conv` does.

    >>> x, w = jnp.ones((2, 28, 28, 3)), jnp.ones((5, 5, 3, 8))
    >>> nnjax.ops.conv(x, w, padding="VALID").shape
    (2, 24, 24, 8)
    """
    if getattr(w, "ndim", 0) not in (3, 4):
        raise ValueError(f"conv: w must have shape (k, in / groups, out) or (k, l, in / groups, out), got {describe(w)}.")
    dims = w.ndim - 2
    (groups,), amounts = expect_positive("conv", groups=groups), expect_padding(padding, dims)
    stride, dilation = (expect_per_axis("conv", n, v, dims) for n, v in (("stride", stride), ("dilation", dilation)))
    how = {"stride": stride, "padding": amounts, "dilation": dilation, "groups": groups}  # hashable, and only ints
    layer = _conv(w.shape[-2] * groups, w.shape[-1], tuple(w.shape[:-2]), **how)
    return layer(*together((layers.ConvParams(w, b), x)))


def max_pool(x: Array, window: int | tuple[int, ...], stride: int | tuple[int, ...] | None = None) -> Array:
    """y[p] = max over i of x[p stride + i], i in the window: `nnjax.max_pool` of x.  x: (..., space, channels).

    Raises as `nnjax.max_pool` does.

    >>> nnjax.ops.max_pool(jnp.ones((2, 28, 28, 3)), (2, 2)).shape
    (2, 14, 14, 3)
    """
    window = expect_per_axis("max_pool", "window", window)
    stride = window if stride is None else expect_per_axis("max_pool", "stride", stride, len(window))
    return _max_pool(window, stride)((), x)


def __dir__() -> list[str]:
    return __all__
