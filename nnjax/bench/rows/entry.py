"""What one row of `nnjax bench` is: what is compared, and its targets."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..measure import Comparison

SMALL = 8 << 20  # bytes: smaller temporaries do not count
SHORT = 1.0  # ms: for shorter times, a ratio within the spread of jax.grad to itself meets the target


class Entry(NamedTuple):
    """make() -> (hand, {name: reference}, args), the plain definition first; peers(seconds) -> {library: time ratio}."""

    name: str
    make: Callable[[], tuple[Callable[..., Any], dict[str, Callable[..., Any]], tuple[Any, ...]]]
    time: float = 1.02
    temp: float = 1.0
    peers: Callable[[float], dict[str, float]] | None = None

    def met(self, c: Comparison) -> bool:
        """Whether time and temporary memory meet the targets."""
        time = c.time_ratio <= self.time or (c.milliseconds < SHORT and c.time_ratio <= c.spread[1])
        return time and (c.temp_ratio <= self.temp or c.temp_bytes["hand"] < SMALL)
