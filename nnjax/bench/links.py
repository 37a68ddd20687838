"""Predict the time of a training step on many devices, from its messages, the speed of the links and of the arithmetic."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from .minimum import Need, Sizes, block_numbers, end_numbers, minimum

COUNTS = (8, 64, 512, 4096)  # devices
STRONG = 4096  # sequences in a batch of fixed size: one for each device at most


class Links(NamedTuple):
    """bandwidth: bytes that a device sends in a second while it receives as many; latency: seconds for each message; rate:
    floating-point operations that a device does in a second."""

    bandwidth: float = 50e9
    latency: float = 5e-6
    rate: float = 1e14


class Prediction(NamedTuple):
    """A step: seconds for arithmetic, and for messages by rings and by trees. batch: sequences on all devices."""

    scaling: str
    mesh: dict[str, int]
    batch: int
    compute: float
    ring: float
    tree: float

    @property
    def devices(self) -> int:
        """The number of devices of the mesh."""
        return math.prod(self.mesh.values())

    @property
    def step(self) -> float:
        """The time for arithmetic, then for the faster of the two ways to send."""
        return self.compute + min(self.ring, self.tree)

    @property
    def efficiency(self) -> float:
        """The share of the step that is arithmetic."""
        return self.compute / self.step


def ring_seconds(kind: str, n: float, devices: int, links: Links) -> float:
    """On p devices in a ring, n bytes (as in `parallel.cost.Message`), a the latency, b the bandwidth.

    all-gather, reduce-scatter: (p - 1) a + (p - 1)/p n/b; an all-reduce is one of each: 2 (p - 1) a + 2 (p - 1)/p n/b.
    Thakur, Rabenseifner and Gropp 2005; Patarasu and Yuan 2009 for the all-reduce.
    """
    times = {"all-gather": 1, "reduce-scatter": 1, "all-reduce": 2}[kind]
    return times * ((devices - 1) * links.latency + (devices - 1) / devices * n / links.bandwidth)


def tree_seconds(kind: str, n: float, devices: int, links: Links) -> float:
    """By recursive halving and doubling: as many bytes as in a ring, but ceil(log2 p) latencies instead of p - 1.

    An all-reduce of few bytes is faster as a whole: ceil(log2 p) (a + n/b).
    Thakur, Rabenseifner and Gropp 2005: recursive doubling gathers, recursive halving scatters, Rabenseifner's all-reduce does
    both.
    """
    rounds = math.ceil(math.log2(devices))
    once = rounds * links.latency + (devices - 1) / devices * n / links.bandwidth
    if kind != "all-reduce":
        return once
    return min(2 * once, rounds * (links.latency + n / links.bandwidth))


def flops(sizes: Sizes) -> float:
    """The flops of a step on the whole batch: for each token 6 for each parameter, and 12 layers width context for attention.

    Chowdhery et al. 2022, appendix B.  Positions are looked up, not multiplied; the table is multiplied at the head.
    """
    numbers = sizes.layers * block_numbers(sizes.width) + end_numbers(sizes) - sizes.context * sizes.width
    return sizes.batch * sizes.context * (6.0 * numbers + 12.0 * sizes.layers * sizes.width * sizes.context)


def predict(sizes: Sizes, mesh: Mapping[str, int], links: Links, scaling: str) -> list[Prediction]:
    """Steps on 8, 64, 512 and 4,096 devices, if the mesh divides them; the axis data, or else shard, grows.

    weak: a device keeps its share of the batch; strong: the batch stays at 4,096 sequences. Messages are the minimum;
    sending and computing do not overlap, all links are equally fast, and adding numbers on the way takes no time.
    Raises ValueError for speeds that are not positive.
    """
    expect_speeds(links)
    grown = next((axis for axis in ("data", "shard") if axis in mesh), "data")
    mesh = {grown: 1, **mesh}
    others = math.prod(mesh.values()) // mesh[grown]
    alike = math.prod(mesh.get(axis, 1) for axis in ("data", "shard"))
    found = []
    for count in (n for n in COUNTS if n % others == 0):
        now = {**mesh, grown: count // others}
        shares = math.prod(now.get(axis, 1) for axis in ("data", "shard"))
        batch = STRONG if scaling == "strong" else sizes.batch // alike * shares
        there = sizes._replace(batch=batch)
        needs = minimum(there, now)
        ring, tree = (sum(_seconds(way, need, now, links) for need in needs) for way in (ring_seconds, tree_seconds))
        found.append(Prediction(scaling, now, batch, flops(there) / count / links.rate, ring, tree))
    return found


def _seconds(way, need: Need, mesh: Mapping[str, int], links: Links) -> float:
    return need.times * way(need.kind, need.bytes, math.prod(mesh[axis] for axis in need.axes), links)


def expect_speeds(links: Links) -> None:
    """Raise ValueError unless bandwidth and rate are positive and latency is not negative."""
    for name, speed in links._asdict().items():
        if not (speed > 0 or (name == "latency" and speed == 0)) or math.isinf(speed):
            raise ValueError(f"bench: {name} must be a positive number, got {speed}; {Links()._asdict()[name]:g} is usual.")
