"""A few examples at a time: the same layer in less memory, and so in less time where memory is the bottleneck."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .errors import describe, expect_array, expect_positive, unknown_name
from .fast.choose import by_platform
from .layer import Layer, expect_layer, plain
from .linear import wide
from .trees.residuals import with_parameters, without_parameters

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
# Chunks in a step of the loop, on the platform for which they are cut: one uses the CPU cores that the other leaves idle.
# The bench case `lenet` shows it.
TOGETHER = {"cpu": 2}


def in_chunks(layer: Layer[jax.Array], size: int, *, axes: int, on: str | None = None) -> Layer[jax.Array]:
    """The same layer, computed for at most `size` examples at a time, each with `axes` axes; x: (..., and those axes).

    For layers that treat each example separately, draw no random numbers, and map one array to one array. Forward, the
    parameters are copied to every chunk, so the backward sums their cotangents over the chunks. on: the platform where
    chunks pay, such as cpu, where two run side by side. Elsewhere all examples run at once, if the residuals have a row for
    each example.
    Raises ValueError for sizes that are not positive ints and a platform that is not known, TypeError for what is no Layer.

    >>> layer = nnjax.in_chunks(nnjax.dense(4, 3), 2, axes=1)
    >>> layer.apply(layer.init(jax.random.key(0)), jnp.ones((5, 4))).shape
    (5, 3)
    """
    expect_layer("in_chunks", layer)
    size, axes = expect_positive("in_chunks", size=size, axes=axes)
    if on is not None and (not isinstance(on, str) or on not in PLATFORMS):
        raise unknown_name("platform of in_chunks", str(on), PLATFORMS)

    def at_once(params, x, **_):
        y, kept = layer.fwd(params, x)
        return y, without_parameters(kept, params)

    def at_once_t(kept, params, ct_y, **_):
        return layer.bwd(with_parameters(kept, params), ct_y)

    def chunked(params, x, *, rows_each, whole, together=1):
        _, (y, kept) = lax.scan(lambda _, chunk: (None, at_once(params, chunk)), None, cut(x, rows_each), unroll=together)
        return joined(y), jax.tree.map(joined, kept) if whole else kept

    def chunked_t(kept, params, ct_y, *, rows_each, whole, together=1):
        def step(ct_params, chunk):
            ct_p, ct_x = at_once_t(chunk[0], params, chunk[1])
            return jax.tree.map(lambda total, ct: total + ct.astype(total.dtype), ct_params, ct_p), ct_x

        zeros = jax.tree.map(lambda p: jnp.zeros_like(p, dtype=wide(p)), params)
        pieces = jax.tree.map(lambda a: cut(a, rows_each), kept) if whole else kept
        ct_params, ct_x = lax.scan(step, zeros, (pieces, cut(ct_y, rows_each)), unroll=together)
        return jax.tree.map(lambda ct, p: ct.astype(p.dtype), ct_params, params), joined(ct_x)

    def fwd(params, x, *, key=None):
        expect_array("in_chunks", "x", x)
        if x.ndim < axes:
            raise ValueError(f"in_chunks: x must have at least the {axes} axes of an example, got {describe(x)}; add axes.")
        lead = x.shape[: x.ndim - axes]
        rows = math.prod(lead)
        each = max((n for n in range(1, min(size, rows) + 1) if rows % n == 0), default=0)
        x = x.reshape(rows, *x.shape[x.ndim - axes :])
        whole = on is not None and by_rows(jax.eval_shape(at_once, params, x)[1], rows)
        if each == rows:
            y, kept = at_once(params, x)
        else:
            how = {"rows_each": each, "whole": whole}
            y, kept = by_platform(params, x, how=how, **platforms(at_once, chunked, whole))
        # An empty array tells bwd the shapes, at no cost.
        return y.reshape(*lead, *y.shape[1:]), (kept, params, jnp.zeros((0, int(whole), each, *lead), x.dtype))

    def bwd(residuals, ct_y):
        kept, params, like = residuals
        whole, each, *lead = like.shape[1:]
        rows = math.prod(lead)
        ct_y = ct_y.reshape(rows, *ct_y.shape[len(lead) :])
        if each == rows:
            ct_params, ct_x = at_once_t(kept, params, ct_y)
        else:
            how = {"rows_each": each, "whole": bool(whole)}
            ct_params, ct_x = by_platform(kept, params, ct_y, how=how, **platforms(at_once_t, chunked_t, whole))
        return ct_params, ct_x.reshape(*lead, *ct_x.shape[1:])

    def platforms(all_at_once, pieces, whole) -> dict[str, Any]:
        if not whole:
            return {"plain": pieces}
        return {"plain": all_at_once, str(on): partial(pieces, together=TOGETHER.get(str(on), 1))}

    made, own = layer.remade, plain(layer)
    remade = None if made is None else lambda *parts: in_chunks(made(*parts), size, axes=axes, on=on)
    if on is None:
        own = None if own is layer else in_chunks(own, size, axes=axes)
    return layer._replace(fwd=fwd, bwd=bwd, remade=remade, plain=own)


def by_rows(kept: Any, rows: int) -> bool:
    """Whether every residual has a row for each example, or only carries such a shape: then residuals can be cut and joined."""
    return all(r.shape[:1] == (rows,) or r.shape[:2] == (0, rows) for r in jax.tree.leaves(kept))


def cut(x: jax.Array, rows_each: int) -> jax.Array:
    """(rows, ...) -> chunks (rows / rows_each, rows_each, ...); likewise what only carries a shape, (0, rows, ...)."""
    if x.shape[0]:
        return x.reshape(x.shape[0] // rows_each, rows_each, *x.shape[1:])
    return x.reshape(x.shape[1] // rows_each, 0, rows_each, *x.shape[2:])


def joined(x: jax.Array) -> jax.Array:
    """The rows of all chunks in one axis again. It only renames entries, so its transpose is the way back, `cut`."""
    if x.shape[1]:
        return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
    return x.reshape(0, x.shape[0] * x.shape[2], *x.shape[3:])
