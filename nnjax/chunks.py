"""Examples a few at a time: the same layer in less memory, and so in less time where memory is what takes it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .errors import describe, expect_array, expect_positive
from .layer import Layer, expect_layer
from .trees.residuals import with_parameters, without_parameters


def in_chunks(layer: Layer, size: int, *, axes: int) -> Layer:
    """The same layer, for at most `size` examples at a time, each of `axes` axes; x: (..., and those axes).

    For layers that treat examples apart, draw nothing from a key, and take and give one array. The parameters were copied
    to every chunk: the backward sums their cotangents over the chunks.
    """
    expect_layer("in_chunks", layer)
    size, axes = expect_positive("in_chunks", size=size, axes=axes)

    def fwd(params, x, *, key=None):
        expect_array("in_chunks", "x", x)
        if x.ndim < axes:
            raise ValueError(f"in_chunks: x must have the {axes} axes of an example, got {describe(x)}; add what is missing.")
        lead = x.shape[: x.ndim - axes]
        rows = math.prod(lead)
        rows_each = max((n for n in range(1, min(size, rows) + 1) if rows % n == 0), default=0)
        if rows_each == rows:
            y, kept = layer.fwd(params, x)
            return y, (kept, None, None)

        def step(_, chunk):
            y, kept = layer.fwd(params, chunk)
            return None, (y, without_parameters(kept, params))

        _, (y, kept) = lax.scan(step, None, x.reshape(rows // rows_each, rows_each, *x.shape[x.ndim - axes :]))
        return y.reshape(*lead, *y.shape[2:]), (kept, params, jnp.zeros((0, rows_each, *lead), x.dtype))

    def bwd(residuals, ct_y):
        kept, params, like = residuals
        if like is None:
            return layer.bwd(kept, ct_y)
        rows_each, *lead = like.shape[1:]  # an empty array carries its shape for nothing

        def step(ct_params, chunk):
            chunk_kept, ct_y = chunk
            ct_p, ct_x = layer.bwd(with_parameters(chunk_kept, params), ct_y)
            return jax.tree.map(lambda total, ct: total + ct.astype(total.dtype), ct_params, ct_p), ct_x

        zeros = jax.tree.map(lambda p: jnp.zeros_like(p, dtype=np.promote_types(p.dtype, np.float32)), params)
        ct_y = ct_y.reshape(math.prod(lead) // rows_each, rows_each, *ct_y.shape[len(lead) :])
        ct_params, ct_x = lax.scan(step, zeros, (kept, ct_y))
        ct_params = jax.tree.map(lambda ct, p: ct.astype(p.dtype), ct_params, params)
        return ct_params, ct_x.reshape(*lead, *ct_x.shape[2:])

    made = layer.remade
    remade = None if made is None else lambda *parts: in_chunks(made(*parts), size, axes=axes)
    return layer._replace(fwd=fwd, bwd=bwd, remade=remade)
