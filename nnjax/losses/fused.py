"""A linear map to many classes and the cross-entropy of its outputs in one: the N x V outputs are never kept.

How it goes is said in `rows`. Here stands the textbook's form of the most common case, class numbers without a bias, a soft
cap, a z-loss or smoothing, which platforms and kernels spell faster.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array

from ..errors import expect_flag
from ..fast.choose import by_platform
from ..fast.cpu import linear_cross_entropy as cpu
from ..fast.gpu import linear_cross_entropy as gpu
from ..fast.kernels import loss as kernels
from ..layer import Layer
from ..linear import broadcast
from .cross_entropy import DEFAULT, Entropy, class_numbers, entropy, entropy_rows, times, weights_of_classes
from .example import closed, constants
from .rows import Of, Table, for_the_platform, linear_apply, linear_bwd, linear_fwd, linear_loss, plainly

NAME = "linear_cross_entropy"


def gradient_of_rows(rows: Array, w: Array, labels: Array, share: Array) -> tuple[Array, Array, Array]:
    """(loss of each row, ct_h, ct_w) for the sum of share times the losses.  rows: (n, d), w: (v, d), labels, share: (n,)."""
    s = jnp.einsum("nd,vd->nv", rows, w, preferred_element_type=share.dtype)
    top = s.max(-1)
    e = jnp.exp(s - broadcast(top[:, None], s.shape))
    z = e.sum(-1)
    hit = broadcast(labels[:, None], s.shape) == broadcast(jnp.arange(w.shape[0], dtype=jnp.int32)[None], s.shape)
    losses = top - jnp.where(hit, s, jnp.zeros_like(s)).sum(-1) + jnp.log(z)
    # share (p - onehot) is the cotangent of s = h wᵀ: back to h through w, and to w through the rows of h.
    p = e * broadcast((share / z)[:, None], s.shape)
    ct_s = (p - jnp.where(hit, broadcast(share[:, None], s.shape), jnp.zeros_like(s))).astype(rows.dtype)
    ct_h = jnp.einsum("nv,vd->nd", ct_s, w, preferred_element_type=share.dtype)
    ct_w = jnp.einsum("nv,nd->vd", ct_s, rows, preferred_element_type=share.dtype)
    return losses, ct_h, ct_w


def fast_gradient_of_rows(
    rows: Array, w: Array, labels: Array, share: Array, kernel: bool = False
) -> tuple[Array, Array, Array]:
    """`gradient_of_rows`, spelled for the platform; kernel: on a GPU or TPU use its kernels, if there are any."""
    fast = {"cpu": cpu.gradient_of_rows, "cuda": partial(gpu.gradient_of_rows, plain=gradient_of_rows)}
    fast |= kernels.spellings(rows, w) if kernel else {}
    return by_platform(rows, w, labels, share, plain=gradient_of_rows, **fast)


def of_entropy(how: Entropy, of_rows: Callable[..., Any], general: Callable[..., Of]) -> Of:
    """How rows are computed: by `of_rows`, as `gradient_of_rows`, where that is all that is asked for."""
    others = general(entropy_rows(NAME, how))

    def gradient(each, whole):
        (h, labels, share), (table, class_weights) = each, whole
        numbers = jnp.issubdtype(labels.dtype, jnp.integer)
        if table.b is not None or not numbers or how.smoothing or how.z_loss or how.softcap is not None:
            return others.gradient(each, whole)
        ids, known = class_numbers(labels, table.w.shape[0])
        c = None if class_weights is None else weights_of_classes(labels, class_weights, share.dtype)
        share = jnp.where(known, share if c is None else c * share, jnp.zeros_like(share))
        losses, ct_h, ct_w = of_rows(h, table.w, ids, share)
        return (jnp.where(known, times(c, losses), jnp.full_like(losses, jnp.nan)), ct_h, None), Table(ct_w)

    return Of(gradient, others.losses)


def linear_cross_entropy_apply(
    params: Any, x: Array, *, key: Any = None, class_weights: Any = None, how: Entropy = DEFAULT, reduction: str = "mean"
) -> Array:
    """The (weighted) mean of -log softmax(h wᵀ + b)[label].  h: (..., n), w: (vocabulary, n), labels, weights: (...)."""
    return linear_apply(x, class_weights, name=NAME, rows=entropy_rows(NAME, how), reduction=reduction)


def linear_cross_entropy_fwd(
    params: Any, x: Array, *, key: Any = None, class_weights: Any = None, how: Entropy = DEFAULT, reduction: str = "mean",
    of_rows: Any = gradient_of_rows,
) -> Any:  # fmt: skip
    of = of_entropy(how, of_rows, plainly)
    return linear_fwd(x, class_weights, name=NAME, rows=entropy_rows(NAME, how), reduction=reduction, of=of)


def linear_cross_entropy_bwd(
    residuals: Any, ct_value: Array, *, how: Entropy = DEFAULT, reduction: str = "mean", of_rows: Any = gradient_of_rows
) -> Any:
    return (), linear_bwd(residuals, ct_value, reduction=reduction, of=of_entropy(how, of_rows, plainly))


def shared_linear_cross_entropy(how: Entropy, reduction: str, kernel: bool) -> Layer[Array]:
    """The loss with class weights, or None, in place of its parameters."""
    expect_flag(NAME, kernel=kernel)
    fast = of_entropy(how, partial(fast_gradient_of_rows, kernel=bool(kernel)), for_the_platform)
    return linear_loss(NAME, entropy_rows(NAME, how), reduction, of_entropy(how, gradient_of_rows, plainly), fast)


def linear_cross_entropy(
    *, label_smoothing: float = 0.0, class_weights: Any = None, ignore_index: int | None = -100, z_loss: float = 0.0,
    softcap: float | None = None, reduction: str = "mean", kernel: bool = False,
) -> Layer[Array]:  # fmt: skip
    """The mean over rows of the cross-entropy of softmax(h wᵀ + b) with class numbers or probabilities, in chunks of rows.

    x = ((h, w), labels) or ((h, w), labels, weights), with (h, w, b) for a bias; h: (..., n); w: (vocabulary, n), like the
    table of an embedding, so that a tied model can pass its table unchanged; b: (vocabulary,); labels: integers (...) in
    0 ... vocabulary-1, or probabilities (..., vocabulary), which have a cotangent too; weights: (...).
    label_smoothing, class_weights, ignore_index, z_loss, softcap, reduction: as in `nnjax.softmax_cross_entropy`.  With "none"
    each row has a cotangent of its own, and the backward forms the scores again.
    The transpose: ct_s = ct (softmax(s) - q) goes back to h as ct_s w, to w as ct_sᵀ h, to b as its sum over rows.
    Another label out of range raises ValueError when its value is known; under `jit` its row has loss NaN and no gradient.
    kernel: on a GPU or TPU, use Pallas kernels, as in `nnjax.ops.linear_cross_entropy`.
    Raises TypeError or ValueError where h, w, b, labels and weights do not fit.

    >>> loss = nnjax.linear_cross_entropy()
    >>> h, w = jnp.zeros((2, 3)), jnp.ones((4, 3))
    >>> round(float(loss.apply((), ((h, w), jnp.array([0, 3])))), 4)
    1.3863
    """
    how = entropy(NAME, label_smoothing, z_loss, softcap, ignore_index)
    shared = None if class_weights is None else constants(NAME, "class_weights", class_weights)
    return closed(shared_linear_cross_entropy(how, reduction, kernel), entropy_rows(NAME, how), shared)
