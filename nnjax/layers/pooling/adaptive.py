"""The mean over as many windows as are asked for, whatever the size of the input."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from jax import Array

from ...errors import describe, expect_float, expect_params, expect_per_axis
from ...layer import Layer
from ...leaf import Like, leaf, outline, outlined
from ...linear import widened
from ..convolving.padding import SPACE

Places = tuple[int | None, ...]


def _means(n: int, places: int) -> np.ndarray:
    """A: (places, n), with row p the mean over the entries floor(p n / places) ... ceil((p + 1) n / places) - 1."""
    p, i = np.arange(places)[:, None], np.arange(n)[None]
    inside = (i >= p * n // places) & (i < -(-(p + 1) * n // places))
    return inside / inside.sum(1, keepdims=True)


def _along(x: Array, a: np.ndarray, axis: int) -> Array:
    """A x along one axis; the transpose is Aᵀ along it."""
    return jnp.moveaxis(jnp.tensordot(jnp.asarray(a, x.dtype), x, (1, axis)), 0, axis)


def adaptive_avg_pool_apply(params: Any, x: Array, *, key: Any = None, places: Places) -> Array:
    """y = A_1 ... A_n x, a matrix of means along each axis of space.  x: (..., space, channels), y: (..., places, channels)."""
    expect_params("adaptive_avg_pool", params, tuple)
    expect_float("adaptive_avg_pool", "x", x)
    dims = len(places)
    if x.ndim <= dims or 0 in x.shape[-1 - dims : -1]:
        raise ValueError(
            f"adaptive_avg_pool: x must have shape (..., {SPACE[dims]}, channels), no axis of space empty, got {describe(x)}; "
            "reshape it."
        )
    y = widened(x)
    for axis, p in enumerate(places, x.ndim - 1 - dims):
        y = y if p is None else _along(y, _means(x.shape[axis], p), axis)
    return y.astype(x.dtype)


def adaptive_avg_pool_fwd(params: Any, x: Array, *, key: Any = None, places: Places) -> Any:
    return adaptive_avg_pool_apply(params, x, places=places), (outline(x),)


def adaptive_avg_pool_bwd(residuals: Any, ct_y: Array, *, places: Places) -> Any:
    (like,) = residuals
    shape, ct_x = outlined(like).shape, widened(ct_y)
    for axis, p in reversed(list(enumerate(places, len(shape) - 1 - len(places)))):  # (A B)ᵀ = Bᵀ Aᵀ
        ct_x = ct_x if p is None else _along(ct_x, _means(shape[axis], p).T, axis)
    return (), ct_x.astype(ct_y.dtype)


def adaptive_avg_pool(places: int | Places) -> Layer[Array]:
    """y: means over windows chosen so that there are `places` of them along each axis of space, whatever the size of x.

    Window p of m over n entries holds floor(p n / m) ... ceil((p + 1) n / m) - 1, so windows may overlap. As a map of each axis
    it is a matrix A of means, and the backward its transpose Aᵀ.  places: an int for x: (..., width, channels), a tuple of two
    for (..., height, width, channels), of three for (..., depth, height, width, channels); None leaves an axis as it is.
    Raises ValueError for anything but positive ints and None, and for an x with fewer axes, or with empty ones.

    >>> nnjax.adaptive_avg_pool((3, None)).apply((), jnp.ones((2, 7, 5, 4))).shape
    (2, 3, 5, 4)
    """
    given = tuple(places) if isinstance(places, (tuple, list)) else (places,)
    known = expect_per_axis("adaptive_avg_pool", "places", tuple(1 if p is None else p for p in given))
    found = tuple(None if p is None else n for p, n in zip(given, known))
    fs = (adaptive_avg_pool_apply, adaptive_avg_pool_fwd, adaptive_avg_pool_bwd)
    apply, fwd, bwd = (cast(Callable[..., Any], partial(f, places=found)) for f in fs)

    def output(residuals):
        like = outlined(residuals[0])
        at = len(like.shape) - 1 - len(found)
        sizes = (n if p is None else p for n, p in zip(like.shape[at:], found))
        return Like((*like.shape[:at], *sizes, like.shape[-1]), like.dtype)

    return leaf(f"adaptive_avg_pool({found})", lambda key: (), apply, fwd, bwd, output)
