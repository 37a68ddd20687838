"""Two programs against each other: interleaved pairs in one process, compiled ahead, and exact counts beside the times."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np


class Comparison(NamedTuple):
    """Hand-written over reference. spread: the same program against itself, 5th to 95th percentile of ratios of medians."""

    case: str
    milliseconds: float  # of the hand-written program, median
    time_ratio: float
    spread: tuple[float, float]
    flops_ratio: float
    temp_ratio: float
    temp_bytes: tuple[int, int]
    pairs: int


def seconds(run: Callable[[], Any]) -> float:
    """The time of one call, its results waited for."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def interleaved(a: Callable[[], Any], b: Callable[[], Any], pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Times of a and b in the order A B B A A B B A ..., so that neither profits from coming second."""
    for run in (a, b, a, b):
        seconds(run)
    times = np.empty((pairs, 2))
    for i in range(pairs):
        for j in (0, 1) if i % 2 == 0 else (1, 0):
            times[i, j] = seconds((a, b)[j])
    return times[:, 0], times[:, 1]


def median_ratio(a: np.ndarray, b: np.ndarray) -> float:
    """The median over pairs of a / b."""
    return float(np.median(a / b))


def self_spread(a: np.ndarray, rng: np.random.Generator, draws: int = 200) -> tuple[float, float]:
    """What `median_ratio` gives for one program against itself: its own times, paired at random, 5 % to 95 %."""
    ratios = [median_ratio(*np.split(rng.permutation(a)[: len(a) // 2 * 2], 2)) for _ in range(draws)]
    return float(np.quantile(ratios, 0.05)), float(np.quantile(ratios, 0.95))


def compare(case: str, hand: Callable, reference: Callable, args: tuple, budget_seconds: float = 8.0) -> Comparison:
    """Both compiled for these arguments and run in interleaved pairs for about `budget_seconds`."""
    compiled = [jax.jit(f).lower(*args).compile() for f in (hand, reference)]
    once = max(seconds(lambda: compiled[1](*args)) for _ in range(3))
    pairs = int(np.clip(budget_seconds / 2 / once, 10, 2000))
    a, b = interleaved(lambda: compiled[0](*args), lambda: compiled[1](*args), pairs)
    costs: Any = [c.cost_analysis() for c in compiled]
    flops = [cost["flops"] for cost in costs]
    memory: Any = [c.memory_analysis() for c in compiled]
    temps = [m.temp_size_in_bytes for m in memory]
    spread = self_spread(b, np.random.default_rng(0))
    ratio = temps[0] / temps[1] if temps[1] else (1.0 if temps[0] == 0 else float("inf"))
    return Comparison(case, float(np.median(a) * 1e3), median_ratio(a, b), spread, flops[0] / flops[1], ratio,
                      (temps[0], temps[1]), pairs)  # fmt: skip
