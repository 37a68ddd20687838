"""Compare programs: interleaved pairs in one process, compiled ahead, with exact counts besides the times."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

PAIRS = 5  # at least, without a budget


class Program(NamedTuple):
    """A compiled program with its arguments, and its exact counts."""

    run: Callable[[], Any]
    compile_seconds: float
    flops: float
    temp_bytes: int
    least_bytes: int = 0  # of its arguments and results, which it must move at least


class Comparison(NamedTuple):
    """Hand-written over reference. Counts and `spread` use the first reference, the plain definition.

    time_ratios: to every reference. spread: of that reference to itself, 5th to 95th percentile of ratios of medians.
    """

    case: str
    milliseconds: float  # of the hand-written program, median
    time_ratios: dict[str, float]
    spread: tuple[float, float]
    flops_ratio: float
    temp_ratio: float
    compile_ratio: float
    temp_bytes: dict[str, int]
    pairs: int
    least_bytes: int = 0  # of the hand-written program's arguments and results

    @property
    def time_ratio(self) -> float:
        """The time ratio to the plain definition."""
        return next(iter(self.time_ratios.values()))

    @property
    def fastest(self) -> str:
        """The reference that took the least time."""
        return max(self.time_ratios, key=lambda name: self.time_ratios[name])


def compiled(f: Callable[..., Any], args: tuple[Any, ...]) -> Program:
    """f compiled for these arguments."""
    start = time.perf_counter()
    program = jax.jit(f).lower(*args).compile()
    took = time.perf_counter() - start
    cost: Any = program.cost_analysis() or {}
    memory: Any = program.memory_analysis()
    temps = memory.temp_size_in_bytes if memory is not None else 0
    moved = memory.argument_size_in_bytes + memory.output_size_in_bytes if memory is not None else 0
    return Program(lambda: program(*args), took, cost.get("flops", float("nan")), temps, moved)


def seconds(run: Callable[[], Any]) -> float:
    """The time of one call, including the wait for its results."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def interleaved(
    a: Callable[[], Any], b: Callable[[], Any], pairs: int, timed: Callable[[Callable[[], Any]], float] = seconds
) -> tuple[np.ndarray, np.ndarray]:
    """Times of a and b in the order A B B A A B B A ..., so that neither profits from being second.  timed: times one call."""
    for run in (a, b, a, b)[: 4 if pairs > 2 else 2]:
        seconds(run)
    times = np.empty((pairs, 2))
    for i in range(pairs):
        for j in (0, 1) if i % 2 == 0 else (1, 0):
            times[i, j] = timed((a, b)[j])
    return times[:, 0], times[:, 1]


def median_ratio(a: np.ndarray, b: np.ndarray) -> float:
    """The median over pairs of a / b."""
    return float(np.median(a / b))


def self_spread(a: np.ndarray, rng: np.random.Generator, draws: int = 200) -> tuple[float, float]:
    """`median_ratio` of one program to itself: its own times, paired at random, 5 % to 95 %."""
    ratios = [median_ratio(*np.split(rng.permutation(a)[: len(a) // 2 * 2], 2)) for _ in range(draws)]
    return float(np.quantile(ratios, 0.05)), float(np.quantile(ratios, 0.95))


def pairs_within(run: Callable[[], Any], budget_seconds: float, least: int = PAIRS) -> int:
    """The number of pairs with this program that fit into the time, at least `least`."""
    once = min(seconds(run) for _ in range(min(3, least)))
    return int(np.clip(budget_seconds / 2 / once, least, 2000))


def _over(a: float, b: float) -> float:
    return a / b if b else (1.0 if a == 0 else float("inf"))


def compare(
    case: str,
    hand: Callable[..., Any],
    references: dict[str, Callable[..., Any]] | Callable[..., Any],
    args: tuple[Any, ...],
    budget_seconds: float = 8.0,
    least: int = PAIRS,
) -> Comparison:
    """All compiled for these arguments; hand and each reference run in interleaved pairs for about `budget_seconds`, but in at
    least `least` pairs, and never fewer than two."""
    named = references if isinstance(references, dict) else {"jax.grad": references}
    ours, theirs = compiled(hand, args), {name: compiled(f, args) for name, f in named.items()}
    ratios, ours_seconds, spread, most = {}, [], (1.0, 1.0), 0
    for i, (name, program) in enumerate(theirs.items()):
        pairs = pairs_within(program.run, budget_seconds / len(theirs), least)
        a, b = interleaved(ours.run, program.run, pairs)
        ratios[name] = median_ratio(a, b)
        ours_seconds.append(np.median(a))
        most = max(most, pairs)
        if i == 0:
            spread = self_spread(b, np.random.default_rng(0))
    plain = next(iter(theirs.values()))
    return Comparison(
        case, float(np.median(ours_seconds) * 1e3), ratios, spread, _over(ours.flops, plain.flops),
        _over(ours.temp_bytes, plain.temp_bytes), ours.compile_seconds / plain.compile_seconds,
        {"hand": ours.temp_bytes, **{name: p.temp_bytes for name, p in theirs.items()}}, most, ours.least_bytes,
    )  # fmt: skip
