"""`nnjax bench`."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from rich.console import Console

from ..bench import mesh
from ..bench.ahead import pods
from ..bench.ahead.command import bench_ahead, expect_targets, rules_ahead
from ..bench.book import epoch_seconds
from ..bench.kinds import MAIN, Kind, kinds
from ..bench.links import Links
from ..bench.measure import PAIRS, compare
from ..bench.peaks import Peaks, peaks, shares
from ..bench.peers import Flags, flags
from ..bench.plot import bars
from ..bench.rows.entry import Entry
from ..bench.rule import Cost, costs
from ..bench.table import entries
from ..check.auditing.listening import Title, shortened
from ..check.auditing.named import function_named
from ..distributed.devices import present
from ..errors import expect_folder, unknown_name
from ..trees.products import product_flops
from .bench_table import Measured, printed, summary
from .budget import Budget, expect_budget, refuse_beside_budget, write_json
from .importance import units

BOOK = "book"
BOOKS = {f"{BOOK} {sizes}": sizes for sizes in ([784, 30, 10], [784, 100, 10])}


@dataclass
class Bench:
    """Compare the hand-written backward with jax.grad: time, floating-point work, temporary memory, compile time. For a
    function of yours, compare each custom rule that it runs through with autodiff of the rule's definition."""

    target: tyro.conf.Positional[str | None] = None
    """module:function, called without arguments; by default nnjax's own cases are measured."""
    only: str | None = None
    """Only the cases whose name contains this."""
    peers: bool = False
    """Also measure PyTorch (eager, and with torch.compile where it works), Flax and Equinox on the same models, where they are
    installed, and report their versions and settings."""
    device: str | None = None
    """A platform, such as cpu or gpu; by default the first device."""
    precision: tuple[Literal["default", "highest"], ...] = ("default",)
    """Precision of float32 matrix products: the device's default, which may round to fewer bits, the highest, or both. On a CPU
    the two are the same."""
    dtype: tuple[Literal["float32", "bfloat16"], ...] = ("float32",)
    """Dtype of every floating-point argument: one of them, or both."""
    seconds: float = 6.0
    """Seconds to measure each case."""
    budget: float | None = None
    """Seconds that the whole run may take. The most common cases come first, each is measured for a shorter time and without
    jax.checkpoint, and those that were not reached are listed."""
    json: Path | None = None
    """Write the figures to this file."""
    plot: Path | None = None
    """Draw the ratios as bars into this PNG file; with --mesh, the predicted times."""
    compile_for: tuple[str, ...] = ()
    """Instead of measuring, compile for machines that are not here (h100, h200, a100, or TPUs such as v5e:2x2), and report
    what is known exactly: launches, memory, and on TPUs bytes and operations. With --mesh, name one TPU topology with as many
    chips (v5e:16x16): shown are its messages beside the minimum and those of simulated devices, and the memory of a chip."""
    mesh: tuple[str, ...] = ()
    """Instead, count what a GPT's training step sends over these meshes (data=8 shard=8 data=4,model=2), as the compiled
    program shows it, beside the minimum; and predict the time of a step on up to 4,096 devices. A CPU simulates the
    devices."""
    bandwidth: float = Links().bandwidth
    """With --mesh: bytes that a device sends in a second."""
    latency: float = Links().latency
    """With --mesh: seconds that each message takes, whatever its size."""
    rate: float = Links().rate
    """With --mesh: floating-point operations that a device does in a second."""

    def run(self) -> int:
        """Print a row for each case, and a summary below the table."""
        expect_targets("bench", self.compile_for)
        expect_budget("bench", self.budget)
        budget = Budget(self.budget)
        if self.budget is not None:
            given = {"mesh": self.mesh, "compile-for": self.compile_for, "module:function": self.target}
            refuse_beside_budget("bench", "chooses among nnjax's own cases", **given)
        if self.target is not None:
            return self._run_rules(self.target)
        if self.mesh:
            return self._run_mesh()
        for file in (self.json, self.plot):
            expect_folder(file)
        if self.compile_for:
            given = {"peers": self.peers, "device": self.device, **self._numbers()}
            self._refuse("what is measured, --compile-for for what is not run", **given)
            chosen = [entry.name for entry in self._chosen(entries("cuda"))]
            return bench_ahead(self.compile_for, chosen, self.json, self.plot)
        device = present("bench", self.device)[0]
        book = self.only is None or self.only in BOOK
        chosen = self._chosen(entries("cuda" if device.platform == "gpu" else device.platform), [BOOK])
        if not self.seconds > 0:
            raise ValueError(f"bench: seconds must be positive, got {self.seconds}; 6 is usual.")
        asked = kinds(self.dtype, self.precision)
        todo = units(chosen, asked, self.peers and MAIN in asked, self.budget is not None)
        books = BOOKS if book and device.platform == "cpu" else {}
        budget.expects([*todo, *books])
        found: dict[str, dict[str, Any]] = {}
        failed: dict[str, str] = {}
        measured: list[Measured] = []
        others: dict[str, Flags] = {}
        head: dict[str, Any] = {"jax": jax.__version__, "device": device.device_kind, "date": time.strftime("%Y-%m-%d")}

        def save() -> int:
            settings = {name: of._asdict() for name, of in list(others.items())}
            write_json(self.json, {**head, "peers": settings, "cases": dict(found), "failed": dict(failed), **budget.to_dict()})
            return int(bool(failed) or (self.budget is not None and not found))

        def finish() -> int:
            if measured:
                printed(list(measured), Console(width=None if Console().is_terminal else 160))
                for name, of in list(others.items()):
                    print(of.line(name))
                print(summary(list(measured)))
            if self.plot and measured:
                bars([m.comparison for m in measured], self.plot, f"{device.device_kind}, JAX {jax.__version__}")
            return save()

        with budget.watched(finish), jax.default_device(device):
            print(f"JAX {jax.__version__} on {device.device_kind}; ratios are hand / jax.grad, medians of interleaved pairs")
            most = peaks(device, asked) if todo else None
            if most:
                print(most, flush=True)
                head["peaks"] = most._asdict()
            work: dict[str, Callable[[], None]] = {
                **{
                    name: partial(self._measured, entry, kind, found, measured, budget, most)
                    if kind
                    else partial(self._beside, entry, found, budget, others)
                    for name, (entry, kind) in todo.items()
                },
                **{name: partial(_book, name, sizes, found) for name, sizes in books.items()},
            }
            for name, measure in work.items():
                if not budget.begin(name):
                    continue
                try:
                    measure()
                except Exception as error:  # one case failed: the others can still be measured in the time left
                    if self.budget is None:
                        raise
                    failed[name] = f"{type(error).__name__}: {error}"
                    print(f"FAILED {name}: {failed[name].splitlines()[0]}", flush=True)
                budget.ended(name)
                save()
        code = finish()
        if self.budget is not None:
            print(budget.summary())
        return code

    def _chosen(self, table: list[Entry], others: Sequence[str] = ()) -> list[Entry]:
        """The cases asked for. Raises ValueError if there are none, here or among the others."""
        names = [*(entry.name for entry in table), *others]
        if self.only is not None and not any(self.only in name for name in names):
            raise unknown_name("bench case", self.only, names)
        return [entry for entry in table if self.only is None or self.only in entry.name]

    def _run_rules(self, target: str) -> int:
        """The cost of each rule; exit code 1 if no rule was reached."""
        self._refuse(
            f"nnjax's own cases, not for {target}", only=self.only, peers=self.peers, mesh=self.mesh, plot=self.plot,
            **self._numbers(),
        )  # fmt: skip
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
        self._refuse("what is measured, --mesh for what is counted", only=self.only, peers=self.peers, **self._numbers())
        for file in (self.json, self.plot):
            expect_folder(file)
        if self.compile_for:
            self._refuse("devices that are here, --compile-for for devices that are not", plot=self.plot, device=self.device)
            return pods.run(self.mesh, self.compile_for, self.json)
        if self.device not in (None, "cpu"):
            present("bench", self.device)
        return mesh.run(self.mesh, Links(self.bandwidth, self.latency, self.rate), self.device, self.json, self.plot)

    def _refuse(self, why: str, **given: Any) -> None:
        for option in (name for name, value in given.items() if value):
            raise ValueError(f"bench: --{option} is for {why}; leave either out.")

    def _numbers(self) -> dict[str, bool]:
        """Which of --precision and --dtype differ from their defaults."""
        return {"dtype": self.dtype != Bench.dtype, "precision": self.precision != Bench.precision}

    def _measured(
        self, entry: Entry, kind: Kind, found: dict[str, dict[str, Any]], measured: list[Measured], budget: Budget,
        most: Peaks | None,
    ) -> None:  # fmt: skip
        hand, references, args = entry.make()
        args, least = kind.cast(args), PAIRS
        if self.budget is not None:  # recomputing saves memory, not time
            least, references = 2, {name: f for name, f in references.items() if name != "checkpoint"}
        with jax.default_matmul_precision(kind.precision):
            c = compare(kind.named(entry.name), hand, references, args, budget.each(self.seconds), least)
            flops = product_flops(hand, args, next(iter(jax.tree.leaves(args)[0].devices())).platform)
        share = shares(most, kind, flops, c.least_bytes, c.milliseconds / 1e3) if most else None
        found[c.case] = {
            **c._asdict(), "dtype": kind.dtype, "precision": kind.precision, "time_target": entry.time,
            "temp_target": entry.temp, "met": entry.met(c), "peer_ratios": {},
            "product_flops": None if math.isnan(flops) else flops, "share_of_peaks": share._asdict() if share else None,
        }  # fmt: skip
        measured.append(Measured(entry, c, found[c.case]["peer_ratios"], share))
        print(f"{c.case}: {c.milliseconds:.3f} ms, time {c.time_ratio:.3f}, temp {c.temp_ratio:.3f}", flush=True)

    def _beside(self, entry: Entry, found: dict[str, dict[str, Any]], budget: Budget, others: dict[str, Flags]) -> None:
        """Measure the other libraries, in float32 at the device's fastest precision. Their times are added to the case, and
        their settings to `others`."""
        if entry.name not in found or entry.peers is None:
            raise ValueError(f"{entry.name} itself was not measured")
        of = found[entry.name]
        of["peer_ratios"].update(entry.peers(budget.each(self.seconds)))
        others.update(flags(of["peer_ratios"]))
        print(f"{entry.name}: {', '.join(f'{name} {ratio:.3f}' for name, ratio in of['peer_ratios'].items())}", flush=True)


def _book(name: str, sizes: list[int], found: dict[str, dict[str, Any]]) -> None:
    ours, loop = epoch_seconds(sizes, 50_000, 3.0, 10)
    found[name] = {"seconds": ours, "numpy_loop_seconds": loop, "ratio": ours / loop}
    print(f"book: an epoch of {sizes}, minibatch 10, 50,000 images takes {ours:.3f} s, the NumPy loop "
          f"{loop:.3f} s: {ours / loop:.3f} of it")  # fmt: skip
