"""Losses over a large vocabulary inside anyone's `jax.grad`."""

from functools import lru_cache

from jax import Array

from ..errors import expect_flag
from ..layer import as_custom_vjp
from ..losses import fused as fused_loss
from ..trees.varying import together

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
