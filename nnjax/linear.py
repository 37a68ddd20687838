"""Linear maps that recur, each directly above its transpose.

A map `A` and its transpose `A_t` satisfy  <y, A x> = <A_t y, x>  for every x and y. That identity is
the whole of the backward pass: where a forward pass applies `A`, its backward pass applies `A_t`.
Matrices need no name here: their transpose is written `.T` where it is used.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Amounts = tuple[tuple[int, int], ...]  # (before, after) for each axis


def broadcast(x: Array, shape: tuple[int, ...]) -> Array:
    """y = x copied along new leading axes and along axes of size 1.  x: any shape that broadcasts to `shape`.

    Its transpose is a sum over the copies (`broadcast_t`). Raises ValueError if x does not broadcast to `shape`.
    """
    return jnp.broadcast_to(x, shape)


def broadcast_t(ct_y: Array, shape: tuple[int, ...]) -> Array:
    """ct_x = ct_y summed over every axis along which `broadcast` had copied x.  shape: that of x."""
    new = ct_y.ndim - len(shape)
    ct_x = ct_y.sum(tuple(range(new)))
    copied = tuple(i for i, n in enumerate(shape) if n == 1 and ct_x.shape[i] != 1)
    return ct_x.sum(copied, keepdims=True)


def fold(x: Array) -> Array:
    """x: (..., n) -> (rows, n): all leading axes made one, so that a contraction over them is one matrix product.

    Reshaping only renames entries: the transpose is the reshape back (`fold_t`).
    """
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def fold_t(ct_y: Array, shape: tuple[int, ...]) -> Array:
    """ct_y: (rows, n) -> `shape`, the shape of the x that was folded."""
    return ct_y.reshape(shape)


def affine(x: Array, w: Array, b: Array | None = None) -> Array:
    """y = x W + b, one product for all leading axes.  x: (..., n), W: (n, m), b: (m,), y: (..., m).

    Linear in x, in W and in b: its three transposes are ct_y W.T, fold(x).T fold(ct_y), and a sum over the leading axes.
    """
    y = fold(x) @ w
    return (y if b is None else y + broadcast(b, y.shape)).reshape(*x.shape[:-1], w.shape[1])


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """y = (a cos - b sin, b cos + a sin), for x = (a, b) cut in half along its last axis: each pair (a_i, b_i) turned.

    cos, sin: the shape of half of x.  A rotation's transpose is its inverse, the rotation by the opposite angle (`rotate_t`).
    """
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate((a * cos - b * sin, b * cos + a * sin), -1)


def rotate_t(ct_y: Array, cos: Array, sin: Array) -> Array:
    """ct_x = ct_y turned back."""
    return rotate(ct_y, cos, -sin)


def take(table: Array, ids: Array) -> Array:
    """y = table[ids], rows picked by number; NaN for an id outside 0 ... rows-1.  table: (rows, n), ids: (...), y: (..., n).

    Linear in the table: y = P table with a single 1 in each row of P. The transpose is `scatter_add`.
    """
    return jnp.asarray(table).at[ids].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)


def scatter_add(ct_y: Array, ids: Array, rows: int) -> Array:
    """ct_table: (rows, n): every row of ct_y: (..., n) added at its id, so that repeated ids add up; ids outside add nothing.

    The sum is taken in float32 at least.
    """
    zeros = jnp.zeros_like(ct_y, shape=(rows, ct_y.shape[-1]), dtype=wide(ct_y))
    return zeros.at[ids].add(widened(ct_y), mode="drop", wrap_negative_indices=False).astype(ct_y.dtype)


def leading(x: Array, rows: int) -> Array:
    """The first `rows` rows of x: (all, n). The transpose is `leading_t`."""
    return x[:rows]


def leading_t(ct_y: Array, rows: int) -> Array:
    """ct_x: (rows, n): ct_y, and below it zeros for the rows that were left out."""
    left_out = jnp.zeros_like(ct_y, shape=(rows - ct_y.shape[0], ct_y.shape[1]))
    return jnp.concatenate([ct_y, left_out])


def pad(x: Array, amounts: Amounts) -> Array:
    """y = x with this many zeros before and after it along each axis.  Its transpose cuts them off again (`crop`)."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(before, after, 0) for before, after in amounts])


def crop(ct_y: Array, amounts: Amounts) -> Array:
    """ct_x = ct_y without the entries that `pad` added."""
    stops = [n - after for n, (_, after) in zip(ct_y.shape, amounts)]
    return lax.slice(ct_y, [before for before, _ in amounts], stops)


def shift(x: Array, axis: int, start: int, n: int, step: int = 1) -> Array:
    """y[i] = x[start + i step] for i < n, along one axis.

    Its transpose puts each entry back where it was read, and zeros elsewhere (`shift_t`).
    """
    return lax.slice_in_dim(x, start, start + (n - 1) * step + 1, step, axis)


def shift_t(ct_y: Array, axis: int, start: int, size: int, step: int = 1) -> Array:
    """ct_x of length `size` along that axis, with ct_x[start + i step] = ct_y[i]."""
    amounts = [(0, 0, 0)] * ct_y.ndim
    amounts[axis] = (start, size - start - (ct_y.shape[axis] - 1) * step - 1, step - 1)
    return lax.pad(ct_y, jnp.zeros((), ct_y.dtype), amounts)


def tiles(x: Array, window: tuple[int, ...]) -> Array:
    """x: (..., space, channels) cut into windows side by side: (..., n1, k1, n2, k2, channels) for two axes of space.

    Entries that fit into no window are left out, so the transpose puts zeros there (`tiles_t`).
    """
    first = x.ndim - 1 - len(window)
    for i, k in enumerate(window):
        axis = first + 2 * i
        n = x.shape[axis] // k
        x = lax.slice_in_dim(x, 0, n * k, axis=axis).reshape(*x.shape[:axis], n, k, *x.shape[axis + 1 :])
    return x


def tiles_t(ct_y: Array, shape: tuple[int, ...]) -> Array:
    """ct_x of this shape: every window back in its place."""
    dims = ct_y.ndim - len(shape)
    lead, channels = ct_y.shape[: len(shape) - 1 - dims], ct_y.shape[-1:]
    whole = tuple(n * k for n, k in zip(ct_y.shape[-1 - 2 * dims : -1 : 2], ct_y.shape[-2 * dims : -1 : 2]))
    return pad(ct_y.reshape(*lead, *whole, *channels), tuple((0, n - m) for n, m in zip(shape, (*lead, *whole, *channels))))


def windows(x: Array, axis: int, k: int, dilation: int = 1) -> Array:
    """y[j, p] = x[p + j dilation] for j < k: what a window of k entries sees at each place p of one axis.

    j is a new first axis. An entry of x was copied into every window that sees it, so the transpose sums the copies
    (`windows_t`).
    """
    n = x.shape[axis] - (k - 1) * dilation
    return jnp.stack([shift(x, axis, j * dilation, n) for j in range(k)])


def windows_t(ct_y: Array, axis: int, dilation: int = 1) -> Array:
    """ct_x[p + j dilation] = the sum of every ct_y[j, p] that was read there, added up in place."""
    k, n = ct_y.shape[0], ct_y.shape[axis + 1]
    ct_x = jnp.zeros((*ct_y.shape[1 : axis + 1], n + (k - 1) * dilation, *ct_y.shape[axis + 2 :]), ct_y.dtype)
    for j in range(k):
        more = shift(ct_x, axis, j * dilation, n) + ct_y[j]
        ct_x = lax.dynamic_update_slice_in_dim(ct_x, more, j * dilation, axis)
    return ct_x


def turned(x: Array, lengths: Array | None = None) -> Array:
    """y_t = x_{n-1-t} for t < n, y_t = x_t from there on, n the length of a sequence.  x: (..., time, m), lengths: (...).

    Without lengths n is the time of all. Each entry moves to one place, and turning again moves it back: a permutation's
    transpose is its inverse, so this one is its own.
    """
    if lengths is None:
        return jnp.flip(x, -2)
    shape = x.shape[:-1]
    t = broadcast(jnp.arange(shape[-1], dtype=jnp.int32), shape)
    n = broadcast(jnp.clip(lengths.astype(jnp.int32), 0, shape[-1])[..., None], shape)
    return jnp.take_along_axis(x, jnp.where(t < n, n - 1 - t, t)[..., None], -2)


def wide(x: Array) -> np.dtype:
    """The dtype in which sums over entries of x are kept: at least float32."""
    return np.promote_types(x.dtype, np.float32)


def widened(x: Array) -> Array:
    """x in the dtype of `wide`."""
    return x.astype(wide(x))
