"""The peaks of a device, measured on it: operations per second of a large product, bytes per second of a large update."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .kinds import Kind
from .measure import seconds

SIDE = {"cpu": 1024}  # of the square matrices
SIDE_ELSEWHERE = 8192
LENGTH = {"cpu": 1 << 25}  # numbers in a vector: far more than fit into a cache
LENGTH_ELSEWHERE = 1 << 28
BATCHES, BATCH_SECONDS, MOST = 3, 0.1, 50  # the best of a few batches of runs, back to back


class Peaks(NamedTuple):
    """products: floating-point operations per second, by `Kind.label`. memory: bytes per second, read and written together."""

    products: dict[str, float]
    memory: float

    def __str__(self) -> str:
        products = ", ".join(f"{label} {rate / 1e12:.3g}" for label, rate in self.products.items())
        return f"peaks measured here: products {products} TFLOP/s; memory {self.memory / 1e9:.3g} GB/s"


class Shares(NamedTuple):
    """The shares of the peaks that a program reaches; None if it has no products, or if they cannot be counted.

    memory: counts the bytes that it must move at least, its arguments and its results, each once.
    """

    products: float | None
    memory: float


def peaks(device: Any, kinds: Sequence[Kind], side: int | None = None, length: int | None = None) -> Peaks:
    """Both peaks of the device, for products of each kind."""
    side = side or SIDE.get(device.platform, SIDE_ELSEWHERE)
    length = length or LENGTH.get(device.platform, LENGTH_ELSEWHERE)
    with jax.default_device(device):
        products = {kind.label: 2 * side**3 / _product(kind, side) for kind in kinds}
        return Peaks(products, 3 * 4 * length / _update(length))


def _product(kind: Kind, side: int) -> float:
    """Seconds for a product of two square matrices."""
    a, b = (kind.cast(jax.random.normal(jax.random.key(i), (side, side), jnp.float32)) for i in (0, 1))
    with jax.default_matmul_precision(kind.precision):
        run = jax.jit(jnp.matmul)
        return shortest(lambda: run(a, b))


def _update(length: int) -> float:
    """Seconds for y = y + x / 2 with float32 vectors, in place: two are read and one is written."""
    run = jax.jit(lambda y, x: y + 0.5 * x, donate_argnums=0)
    x, y = jnp.ones(length, jnp.float32), [jnp.zeros(length, jnp.float32)]

    def once():
        y[0] = run(y[0], x)
        return y[0]

    return shortest(once)


def shortest(run: Callable[[], Any], timer: Callable[[Callable[[], Any]], float] = seconds) -> float:
    """Seconds of one run, the shortest of several batches of runs that start without waiting for each other."""
    timer(run)
    many = max(1, min(MOST, math.ceil(BATCH_SECONDS / max(timer(run), 1e-9))))
    return min(timer(lambda: [run() for _ in range(many)][-1]) for _ in range(BATCHES)) / many


def shares(peaks: Peaks, kind: Kind, flops: float, least_bytes: float, took: float) -> Shares:
    """The shares of a program that took this many seconds."""
    products = flops / took / peaks.products[kind.label] if flops > 0 else None  # not for NaN
    return Shares(products, least_bytes / took / peaks.memory)
