"""`nnjax bench`."""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console
from rich.table import Table

from ..bench import mesh
from ..bench.ahead.command import bench_ahead, expect_targets, rules_ahead
from ..bench.book import epoch_seconds
from ..bench.links import Links
from ..bench.measure import Comparison, compare
from ..bench.plot import bars
from ..bench.rule import Cost, costs
from ..bench.table import Entry, entries
from ..check.auditing.listening import Title
from ..check.auditing.named import function_named
from ..check.auditing.suite import shortened
from ..distributed.devices import present
from ..errors import expect_folder, unknown_name

BOOK = "book"


@dataclass
class Bench:
    """The hand-written backward against jax.grad: time, floating-point work, temporary memory, compile time; or, of a function
    of yours, each custom rule that it runs through against autodiff of its definition."""

    target: tyro.conf.Positional[str | None] = None
    """module:function, called without arguments; without it the table of nnjax's own cases is measured."""
    only: str | None = None
    """Cases whose name contains this."""
    peers: bool = False
    """Also PyTorch (eager), Flax and Equinox on the same models, where they are installed."""
    device: str | None = None
    """A platform, such as cpu or gpu; by default the first device."""
    seconds: float = 6.0
    """How long to measure each case."""
    json: Path | None = None
    """Write the figures to this file."""
    plot: Path | None = None
    """Draw the ratios as bars into this PNG; with --mesh, the predicted times."""
    compile_for: tuple[str, ...] = ()
    """Instead of measuring: compile for machines that are not here (h100, h200, a100, or TPUs such as v5e:2x2), and tell
    what is exact: launches, memory, on TPUs bytes and operations."""
    mesh: tuple[str, ...] = ()
    """Instead: what a GPT's training step sends over these meshes (data=8 shard=8 data=4,model=2), read from the compiled
    program, beside the least possible; and how long a step would take on up to 4,096 devices. On a CPU they are simulated."""
    bandwidth: float = Links().bandwidth
    """With --mesh: bytes a second that a device sends."""
    latency: float = Links().latency
    """With --mesh: seconds of a message."""
    rate: float = Links().rate
    """With --mesh: floating-point operations a second of a device."""

    def run(self) -> int:
        """Print a row for each case, and below the table what the whole comes to."""
        expect_targets("bench", self.compile_for)
        if self.target is not None:
            return self._run_rules(self.target)
        if self.mesh:
            return self._run_mesh()
        table = entries()
        chosen = [entry for entry in table if self.only is None or self.only in entry.name]
        book = self.only is None or self.only in BOOK
        if not chosen and not book:
            raise unknown_name("bench case", self.only or "", [*(entry.name for entry in table), BOOK])
        for file in (self.json, self.plot):
            expect_folder(file)
        if self.compile_for:
            self._refuse("what is measured, --compile-for for what is not run", peers=self.peers, device=self.device)
            return bench_ahead(self.compile_for, [entry.name for entry in chosen], self.json, self.plot)
        if not self.seconds > 0:
            raise ValueError(f"bench: seconds must be positive, got {self.seconds}; 6 is usual.")
        device = present("bench", self.device)[0]
        found: dict[str, dict[str, Any]] = {}
        with jax.default_device(device):
            print(f"JAX {jax.__version__} on {device.device_kind}; ratios are hand / jax.grad, medians of interleaved pairs")
            measured = [self._measured(entry, found) for entry in chosen]
        if measured:
            Console(width=None if Console().is_terminal else 160).print(_table(measured))
            _summary(measured)
        if book and device.platform == "cpu":
            for sizes in ([784, 30, 10], [784, 100, 10]):
                ours, loop = epoch_seconds(sizes, 50_000, 3.0, 10)
                found[f"{BOOK} {sizes}"] = {"seconds": ours, "numpy_loop_seconds": loop, "ratio": ours / loop}
                print(f"book: an epoch of {sizes}, minibatch 10, 50,000 images takes {ours:.3f} s, the NumPy loop "
                      f"{loop:.3f} s: {ours / loop:.3f} of it")  # fmt: skip
        if self.json:
            head = {"jax": jax.__version__, "device": device.device_kind, "date": time.strftime("%Y-%m-%d")}
            self.json.write_text(json.dumps({**head, "cases": found}, indent=1) + "\n")
        if self.plot and measured:
            bars([c for _, c, _ in measured], self.plot, f"{device.device_kind}, JAX {jax.__version__}")
        return 0

    def _run_rules(self, target: str) -> int:
        """The cost of each rule; exit code 1 where none was met."""
        self._refuse(f"nnjax's own cases, not for {target}", only=self.only, peers=self.peers, mesh=self.mesh, plot=self.plot)
        expect_folder(self.json)
        if not self.seconds > 0:
            raise ValueError(f"bench: seconds must be positive, got {self.seconds}; 6 is usual.")
        if self.compile_for:
            self._refuse("what is measured, --compile-for for what is not run", device=self.device)
            return rules_ahead(self.compile_for, target, self.json)
        fn, device = function_named("bench", target), present("bench", self.device)[0]
        found: list[dict[str, Any]] = []

        def said(title: Title, cost: Cost | str) -> None:
            print(f"{title.name} ({shortened(title.where)})\n{cost}\n", flush=True)
            if isinstance(cost, Cost):
                found.append({**title._asdict(), **cost.to_dict()})

        print(f"JAX {jax.__version__} on {device.device_kind}; the ratio of times is the median of interleaved pairs\n")
        with jax.default_device(device):
            met = costs(fn, self.seconds, said)
        if not met:
            print(f"{target} ran through no custom_vjp or custom_jvp function")
        if self.json:
            head = {"jax": jax.__version__, "device": device.device_kind, "date": time.strftime("%Y-%m-%d")}
            self.json.write_text(json.dumps({**head, "rules": found}, indent=1) + "\n")
        return 0 if met else 1

    def _run_mesh(self) -> int:
        self._refuse("what is measured, --mesh for what is counted", only=self.only, peers=self.peers)
        for file in (self.json, self.plot):
            expect_folder(file)
        if self.device not in (None, "cpu"):
            present("bench", self.device)
        return mesh.run(self.mesh, Links(self.bandwidth, self.latency, self.rate), self.device, self.json, self.plot)

    def _refuse(self, why: str, **given: Any) -> None:
        for option in (name for name, value in given.items() if value):
            raise ValueError(f"bench: --{option} is for {why}; leave either out.")

    def _measured(self, entry: Entry, found: dict[str, Any]) -> tuple[Entry, Comparison, dict[str, float]]:
        hand, references, args = entry.make()
        c = compare(entry.name, hand, references, args, self.seconds)
        peers = entry.peers(self.seconds) if self.peers and entry.peers else {}
        found[entry.name] = {
            **c._asdict(), "time_target": entry.time, "temp_target": entry.temp, "met": entry.met(c), "peer_ratios": peers,
        }  # fmt: skip
        print(f"{entry.name}: {c.milliseconds:.3f} ms, time {c.time_ratio:.3f}, temp {c.temp_ratio:.3f}", flush=True)
        return entry, c, peers


def _table(measured: list[tuple[Entry, Comparison, dict[str, float]]]) -> Table:
    table = Table()
    for heading in ("case", "ms", "time", "target", "self 5-95 %", "temp", "target", "flops", "compile", "other", "met"):
        table.add_column(heading, justify="left" if heading in ("case", "other") else "right")
    for entry, c, peers in measured:
        others = {**dict(list(c.time_ratios.items())[1:]), **peers}
        table.add_row(
            entry.name, f"{c.milliseconds:.3f}", f"{c.time_ratio:.3f}", f"{entry.time}", f"{c.spread[0]:.2f}-{c.spread[1]:.2f}",
            f"{c.temp_ratio:.3f}", f"{entry.temp}", f"{c.flops_ratio:.3f}", f"{c.compile_ratio:.2f}",
            ", ".join(f"{name} {ratio:.2f}" for name, ratio in others.items()), "yes" if entry.met(c) else "NO",
        )  # fmt: skip
    return table


def _summary(measured: list[tuple[Entry, Comparison, dict[str, float]]]) -> None:
    times = [c.time_ratio for _, c, _ in measured]
    temps = [max(c.temp_ratio, 1e-3) for _, c, _ in measured if math.isfinite(c.temp_ratio)]
    print(f"geometric mean of {len(times)} cases: time {_mean(times):.3f}, temp {_mean(temps):.3f}")
    missed = [entry.name for entry, c, _ in measured if not entry.met(c)]
    print(f"targets met: {len(measured) - len(missed)} of {len(measured)}" + "".join(f"\n  missed: {m}" for m in missed))


def _mean(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else float("nan")
