"""The book's epoch, compared with the loop of its first chapter: NumPy, one example at a time."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import nielsen
from ..train.step import init_state, make_epoch, make_step


def sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z))."""
    return 1.0 / (1.0 + np.exp(-z))


def numpy_backprop(
    w: list[np.ndarray], b: list[np.ndarray], x: np.ndarray, y: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The gradient of the quadratic cost for one example, a column vector, as chapter 2 computes it."""
    a, z = [x], []
    for w_l, b_l in zip(w, b):
        z.append(w_l @ a[-1] + b_l)
        a.append(sigmoid(z[-1]))
    delta = (a[-1] - y) * sigmoid(z[-1]) * (1 - sigmoid(z[-1]))
    nabla_w, nabla_b = [delta @ a[-2].T], [delta]
    for l in reversed(range(len(w) - 1)):
        delta = (w[l + 1].T @ delta) * sigmoid(z[l]) * (1 - sigmoid(z[l]))
        nabla_w.insert(0, delta @ a[l].T)
        nabla_b.insert(0, delta)
    return nabla_w, nabla_b


def numpy_epoch(
    w: list[np.ndarray], b: list[np.ndarray], x: np.ndarray, y: np.ndarray, eta: float, batch_size: int, order: np.ndarray
) -> Any:
    """(w, b) after one epoch: one example at a time, with the gradients of a minibatch summed, all in NumPy's float64.

    x: (examples, inputs, 1), y: (examples, outputs, 1): column vectors, as in the book.
    """
    for rows in order.reshape(-1, batch_size):
        sum_w, sum_b = [np.zeros(v.shape) for v in w], [np.zeros(v.shape) for v in b]
        for i in rows:
            nabla_w, nabla_b = numpy_backprop(w, b, x[i], y[i])
            sum_w = [total + one for total, one in zip(sum_w, nabla_w)]
            sum_b = [total + one for total, one in zip(sum_b, nabla_b)]
        w = [v - eta / batch_size * total for v, total in zip(w, sum_w)]
        b = [v - eta / batch_size * total for v, total in zip(b, sum_b)]
    return w, b


def epoch_seconds(sizes: list[int], examples: int, eta: float, batch_size: int, repeats: int = 5) -> tuple[float, float]:
    """(seconds of our epoch, seconds of the NumPy loop), medians of interleaved runs, on random images."""
    rng = np.random.default_rng(0)
    x = rng.random((examples, sizes[0]), np.float32)
    y = np.eye(sizes[-1], dtype=np.float32)[rng.integers(0, sizes[-1], examples)]
    params = nielsen.init(jax.random.key(0), sizes)
    optimizer = optax.sgd(eta)
    epoch = make_epoch(make_step(nielsen.value_and_grad(), optimizer), batch_size)
    state = init_state(params, optimizer, jax.random.key(1))
    x_device, y_device = jnp.asarray(x), jnp.asarray(y)
    state, _ = epoch(state, x_device, y_device)
    ours, theirs = [], []
    w, b = [np.array(v, np.float64) for v in params.w], [np.array(v, np.float64)[:, None] for v in params.b]
    x_columns, y_columns = x.astype(np.float64)[:, :, None], y.astype(np.float64)[:, :, None]
    for _ in range(repeats):
        start = time.perf_counter()
        state, value = epoch(state, x_device, y_device)
        jax.block_until_ready(value)
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        order = rng.permutation(examples)[: examples // batch_size * batch_size]
        w, b = numpy_epoch(w, b, x_columns, y_columns, eta, batch_size, order)
        theirs.append(time.perf_counter() - start)
    return float(np.median(ours)), float(np.median(theirs))
