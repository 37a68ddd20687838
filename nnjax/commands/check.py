"""`nnjax check`."""

import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from ..bench.ahead.command import check_ahead, expect_targets
from ..cases import Case, cases
from ..check.layers import check_layer, crowded, forget
from ..check.mutation.mutant_kinds import KINDS
from ..check.mutation.mutants import hunt
from ..check.options import precisions
from ..check.report import Report, Row, merged
from ..check.running.compiling import compiled_lightly
from ..distributed.cases import Case as DistributedCase
from ..distributed.cases import cases as distributed_cases
from ..distributed.check import check_draws
from ..distributed.devices import present, simulate
from ..distributed.mesh import make_mesh
from ..distributed.sharded import Sharded
from ..errors import expect_folder, expect_positive, unknown_name
from .budget import Budget, by_importance, expect_budget, refuse_beside_budget, write_json
from .importance import CHECK, WITHIN_BUDGET, workers

SEEDS = 5  # of a case that are checked in one go
SIMULATED = 8  # devices that a CPU simulates, at least


@dataclass
class Check:
    """Check every layer, loss and model: the hand-written gradient against jax.grad, on every device of this machine."""

    only: str | None = None
    """Only the cases whose name contains this."""
    full: bool = False
    """Check every transform in every dtype, compiled with all optimisations."""
    seeds: int = 1
    """How many seeds to draw inputs and cotangents from."""
    mutants: bool = False
    """Also plant wrong backward passes, and count how many the check rejects."""
    device: str | None = None
    """Check on this platform only, such as cpu or gpu; by default on every device."""
    json: Path | None = None
    """Write every row to this file."""
    budget: float | None = None
    """Seconds that the whole run may take. The most common cases come first, compiled, in float32 at every precision of the
    device and in bfloat16. Those that were not reached are listed."""
    compile_for: tuple[str, ...] = ()
    """Instead of checking, compile value and gradient of every case, in every dtype, for machines that are not here (h100,
    h200, a100, or TPUs such as v5e:2x2)."""
    mesh: str | None = None
    """Instead, check the layers and models of nnjax.distributed against one device, over a mesh with axes data, shard and
    model, such as data=4,model=2. A CPU simulates the devices. Programs are compiled; --full also runs them operation by
    operation."""

    def run(self) -> int:
        """Print a line for each case and a summary; exit code 1 if a check failed or a mutant survived.

        Raises ValueError for an invalid mesh, or one that needs more devices than there are.
        """
        expect_positive("check", seeds=self.seeds)
        expect_folder(self.json)
        expect_budget("check", self.budget)
        budget = Budget(self.budget)
        if self.budget is not None:
            why = "checks each case once, compiled"
            refuse_beside_budget("check", why, full=self.full, mutants=self.mutants, mesh=self.mesh,
                                 **{"compile-for": self.compile_for})  # fmt: skip
        expect_targets("check", self.compile_for)
        if self.compile_for:
            given = {
                "full": self.full,
                "seeds": self.seeds > 1,
                "mutants": self.mutants,
                "device": self.device,
                "mesh": self.mesh,
            }
            for option in (name for name, value in given.items() if value):
                raise ValueError(f"check: --{option} is for checks that run, which --compile-for does not; leave one out.")
            return check_ahead(self.compile_for, [case.name for case in self._chosen(cases())], self.json)
        if self.mesh is not None:
            if self.mutants:
                raise ValueError("check: mutants are planted only in layers on one device; leave out --mutants or --mesh.")
            if self.device == "cpu":
                jax.config.update("jax_platforms", "cpu")
            simulate(max(SIMULATED, math.prod(sizes_of(self.mesh).values())))
        with nullcontext() if self.full else compiled_lightly():  # before JAX starts a device
            return self._run(budget)

    def _run(self, budget: Budget) -> int:
        chosen = self._chosen(self._cases())
        devices = list({d.device_kind: d for d in present("check", self.device)}.values())
        if any(d.platform != "cpu" for d in devices):  # on these devices the programs that train are checked
            jax.config.update("jax_disable_most_optimizations", False)
        named = ", ".join(f"{d.device_kind} ({'/'.join(precisions(d))})" for d in devices)
        print(f"JAX {jax.__version__} on {named}; {len(chosen)} cases, {self.seeds} seed{'s' if self.seeds > 1 else ''}")
        start = time.perf_counter()
        head = {"jax": jax.__version__, "date": time.strftime("%Y-%m-%d"), "devices": [d.device_kind for d in devices]}
        head["precisions"] = {d.device_kind: precisions(d) for d in devices}
        code, found = self._check(chosen, devices) if self.budget is None else self._within(budget, chosen, devices, head)
        if self.mutants:
            survived, hunted = self._mutants(chosen)
            code, found = max(code, survived), {**found, **hunted, "ok": found["ok"] and not survived}
        print(f"{time.perf_counter() - start:.0f} s")
        write_json(self.json, {**head, **found})
        return code

    def _chosen(self, found: Sequence[Any]) -> list[Any]:
        chosen = [case for case in found if self.only is None or self.only in case.name]
        if not chosen:
            raise unknown_name("case", self.only or "", [case.name for case in found])
        return chosen

    def _workers(self) -> int:
        """Cases that run at once: most of the time goes into compiling, which releases Python's lock. Programs that communicate
        must run one at a time."""
        return workers(self.budget) if self.mesh is None else 1

    def _cases(self) -> Sequence[Any]:
        return cases() if self.mesh is None else distributed_cases(self._mesh())

    def _mesh(self) -> Mesh:
        return make_mesh(**sizes_of(self.mesh or ""))

    def _held(self, case: Any, seed: int, devices: list[Any]) -> Report:
        if isinstance(case, DistributedCase):
            return self._held_on_mesh(case, seed)
        params, x, key = case.make(seed)
        light = {} if self.budget is None else WITHIN_BUDGET
        report = check_layer(case.layer, params, x, key=key, seed=seed, devices=devices, full=self.full, **light)
        return report._replace(rows=tuple(row._replace(case=case.name) for row in report.rows))

    def _held_on_mesh(self, case: DistributedCase, seed: int) -> Report:
        (params, x), mesh = case.make(seed), self._mesh()
        if case.reference is None:
            axes = tuple(name for name in ("data", "shard") if name in mesh.axis_names)
            report = check_draws(Sharded(case.layer, case.specs[0]), params, x, mesh, axes, key=jax.random.key(seed))
        else:
            report = check_layer(
                case.layer, params, x, mesh=mesh, specs=case.specs, reference=case.reference, seed=seed,
                transforms=("eager", "jit") if self.full else ("jit",),
            )  # fmt: skip
        return report._replace(
            rows=tuple(row._replace(case=row.case.replace(case.layer.name, case.name)) for row in report.rows)
        )

    def _check(self, chosen: list[Any], devices: list[Any]) -> tuple[int, dict[str, Any]]:
        def one(unit: tuple[Any, range]) -> Report:
            case, seeds = unit
            return merged(self._held(case, seed, devices) for seed in seeds)

        parts = [range(first, min(first + SEEDS, self.seeds)) for first in range(0, self.seeds, SEEDS)]
        found = _in_parallel(one, [(case, seeds) for case in chosen for seeds in parts], self._workers())
        reports = []
        for case in chosen:
            report = merged([next(found) for _ in parts])
            _say(case.name, report)
            reports.append(report)
        return self._sum(reports)

    def _within(
        self, budget: Budget, chosen: list[Any], devices: list[Any], head: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        """Like `_check`, for as many cases as the budget allows; the file is written after each."""
        named = {case.name: case for case in chosen}
        order = by_importance(list(named), CHECK)
        budget.expects(order)
        done: dict[str, Report] = {}

        def found() -> dict[str, Any]:
            return {**merged(list(done.values())).to_dict(), **budget.to_dict()}

        def save() -> int:
            write_json(self.json, {**head, **found()})
            return int(not done or not all(report.ok for report in list(done.values())))  # nothing compared: failed

        def one(name: str) -> None:
            if budget.begin(name):
                try:
                    report = merged(self._held(named[name], seed, devices) for seed in range(self.seeds))
                except Exception as error:  # one case failed: the others can still be checked in the time left
                    report = Report((), (f"{name}: could not be checked: {type(error).__name__}: {error}",))
                done[name] = report
                budget.ended(name)
                _say(name, report)
                save()

        def finish() -> int:
            self._sum([done[name] for name in order if name in done])
            return save()

        with budget.watched(finish):
            for _ in _in_parallel(one, order, self._workers()):
                pass
        code = finish()
        print(budget.summary())
        return code, found()

    def _sum(self, reports: list[Report]) -> tuple[int, dict[str, Any]]:
        """Print the summary."""
        every = merged(reports)
        alarms = sum(not r.ok for r in reports)
        print(
            f"{len(every.rows)} comparisons over {self.seeds} seed{'s' if self.seeds > 1 else ''}, "
            f"{len(every.failures)} failed, in {alarms} of {len(reports)} cases"
        )
        print(f"largest share of its bound that an error takes: {_shares(every.rows)}")
        return (0 if every.ok else 1), every.to_dict()

    def _mutants(self, chosen: list[Case]) -> tuple[int, dict[str, Any]]:
        def one(case: Case):
            params, x, key = case.make(0)
            return hunt(case.layer, params, x, key=key)

        rows, total = [], Counter()
        for outcomes, case in zip(_in_parallel(one, chosen, self._workers()), chosen):
            counts = Counter(o.status for o in outcomes)
            total += counts
            rows += [{"case": case.name, **{k: v for k, v in o._asdict().items() if k != "report"}} for o in outcomes]
            print(
                f"{case.name:42} killed {counts['killed']} / {counts['killed'] + counts['survived']}, "
                f"{counts['equivalent']} equivalent", flush=True,
            )  # fmt: skip
            for o in outcomes:
                if o.status == "survived":
                    print(f"  SURVIVED: {o.mutant} {o.where}")
        own = [r for r in rows if r["status"] == "killed" and r["expected"]]
        right = sum(r["expected"] == r["diagnosis"] for r in own)
        print(f"killed {total['killed']} / {total['killed'] + total['survived']} mutants of {len(KINDS)} kinds; "
              f"{total['equivalent']} equivalent; kind named rightly for {right} of {len(own)}")  # fmt: skip
        return (1 if total["survived"] else 0), {"mutants": rows}


def _say(name: str, report: Report) -> None:
    counts = Counter(row.status for row in report.rows)
    verdict = "ok" if report.ok else "FAILED"
    extra = "".join(f", {counts[s]} {s}" for s in ("zero", "vacuous", "failed") if counts[s])
    print(f"{verdict:6} {name:42} {len(report.rows):6} comparisons{extra}", flush=True)
    if not report.ok:
        print(report)


def _in_parallel(one: Callable[[Any], Any], units: Sequence[Any], workers: int) -> Iterator[Any]:
    """Yield one(unit) of each, in order; compiled programs are dropped between two units if they take up too much memory."""
    turn, busy = threading.Condition(), [0]

    def in_turn(unit):
        with turn:
            turn.wait_for(lambda: busy[0] == 0 or not crowded())  # programs in use cannot be dropped
            if crowded():
                forget()
            busy[0] += 1
        try:
            return one(unit)
        finally:
            with turn:
                busy[0] -= 1
                turn.notify_all()

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(in_turn, units)


def _shares(rows: Iterable[Row]) -> str:
    """How near right gradients came to an alarm, in each dtype."""
    largest: dict[str, float] = {}
    for row in rows:
        if row.witness == "reference" and row.status == "ok" and row.bound > 0:
            largest[row.dtype] = max(largest.get(row.dtype, 0.0), row.error / row.bound)
    return ", ".join(f"{dtype} {share:.2f}" for dtype, share in largest.items())


def sizes_of(text: str) -> dict[str, int]:
    """{"data": 4, "model": 2} of "data=4,model=2". Raises ValueError for anything else."""
    found = [re.fullmatch(r"(\w+)=([1-9]\d*)", entry.strip()) for entry in text.split(",")]
    sizes = {match[1]: int(match[2]) for match in found if match}
    if len(sizes) != len(found):
        raise ValueError(f"check: --mesh must list each axis once, with its size, got {text!r}; write e.g. data=4,model=2.")
    return sizes
