"""`nnjax check` and `nnjax audit`."""

import importlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import jax
import tyro

from ..cases import Case, cases
from ..errors import describe, expect_folder, expect_positive, unknown_name
from .audit import audit
from .compiling import compiled_lightly
from .mutant_kinds import KINDS
from .mutants import hunt
from .options import precisions
from .report import Report, Row, merged
from .vjp import check_layer, crowded, forget

SEEDS = 5  # of a case checked in one go


@dataclass
class Check:
    """Check every layer, loss and model: the hand-written gradient against jax.grad, on every device of this machine."""

    only: str | None = None
    """Cases whose name contains this."""
    full: bool = False
    """Every transform in every dtype, compiled with every optimisation."""
    seeds: int = 1
    """How many seeds of inputs and cotangents."""
    mutants: bool = False
    """Plant wrong backward passes too, and count those that the check rejects."""
    device: str | None = None
    """A platform, such as cpu or gpu; by default every device there is."""
    json: Path | None = None
    """Write every row to this file."""

    def run(self) -> int:
        """Print a line for each case and a summary; exit code 1 where a check failed or a mutant survived."""
        expect_positive("check", seeds=self.seeds)
        expect_folder(self.json)
        with nullcontext() if self.full else compiled_lightly():  # before a device is asked for
            return self._run()

    def _run(self) -> int:
        found = self._cases()
        chosen = [case for case in found if self.only is None or self.only in case.name]
        if not chosen:
            raise unknown_name("case", self.only or "", [case.name for case in found])
        devices = _devices(self.device)
        named = ", ".join(f"{d.device_kind} ({'/'.join(precisions(d))})" for d in devices)
        print(f"JAX {jax.__version__} on {named}; {len(chosen)} cases, {self.seeds} seed{'s' if self.seeds > 1 else ''}")
        start = time.perf_counter()
        code, found = self._check(chosen, devices)
        if self.mutants:
            survived, hunted = self._mutants(chosen)
            code, found = max(code, survived), {**found, **hunted, "ok": found["ok"] and not survived}
        print(f"{time.perf_counter() - start:.0f} s")
        if self.json:
            head = {"jax": jax.__version__, "date": time.strftime("%Y-%m-%d"), "devices": [d.device_kind for d in devices]}
            head["precisions"] = {d.device_kind: precisions(d) for d in devices}
            self.json.write_text(json.dumps({**head, **found}, indent=1) + "\n")
        return code

    def _workers(self) -> int:
        return 2  # cases at once: most of the time goes into compiling, which leaves Python's lock alone

    def _cases(self) -> Sequence[Any]:
        return cases()

    def _held(self, case: Any, seed: int, devices: list) -> Report:
        params, x, key = case.make(seed)
        report = check_layer(case.layer, params, x, key=key, seed=seed, devices=devices, full=self.full)
        return report._replace(rows=tuple(row._replace(case=case.name) for row in report.rows))

    def _check(self, chosen: list, devices: list) -> tuple[int, dict]:
        def one(unit: tuple[Any, range]) -> Report:
            case, seeds = unit
            return merged(self._held(case, seed, devices) for seed in seeds)

        parts = [range(first, min(first + SEEDS, self.seeds)) for first in range(0, self.seeds, SEEDS)]
        found = _in_parallel(one, [(case, seeds) for case in chosen for seeds in parts], self._workers())
        reports = []
        for case in chosen:
            report = merged([next(found) for _ in parts])
            counts = Counter(row.status for row in report.rows)
            verdict = "ok" if report.ok else "FAILED"
            extra = "".join(f", {counts[s]} {s}" for s in ("zero", "vacuous", "failed") if counts[s])
            print(f"{verdict:6} {case.name:42} {len(report.rows):6} comparisons{extra}", flush=True)
            if not report.ok:
                print(report)
            reports.append(report)
        every = merged(reports)
        alarms = sum(not r.ok for r in reports)
        print(
            f"{len(every.rows)} comparisons over {self.seeds} seed{'s' if self.seeds > 1 else ''}, "
            f"{len(every.failures)} failed, in {alarms} of {len(reports)} cases"
        )
        print(f"largest share of its bound that an error takes: {_shares(every.rows)}")
        return (0 if every.ok else 1), every.to_dict()

    def _mutants(self, chosen: list[Case]) -> tuple[int, dict]:
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


def _in_parallel(one: Callable[[Any], Any], units: Sequence, workers: int) -> Iterator:
    """one(unit) of each, in order; between two units programs are dropped where they take up too much."""
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
    """How near right gradients come to an alarm, in each dtype."""
    largest: dict[str, float] = {}
    for row in rows:
        if row.witness == "reference" and row.status == "ok" and row.bound > 0:
            largest[row.dtype] = max(largest.get(row.dtype, 0.0), row.error / row.bound)
    return ", ".join(f"{dtype} {share:.2f}" for dtype, share in largest.items())


def _devices(platform: str | None) -> list:
    if platform is None:
        return list({d.device_kind: d for d in jax.devices()}.values())
    try:
        return list({d.device_kind: d for d in jax.devices(platform)}.values())
    except RuntimeError:
        present = sorted({d.platform for d in jax.devices()})
        raise ValueError(f"check: no device of platform {platform!r} here; present are {', '.join(present)}.") from None


@dataclass
class Audit:
    """Run a function once and check every custom_vjp and custom_jvp rule that it passes through."""

    target: tyro.conf.Positional[str]
    """module:function; the function is called without arguments."""
    json: Path | None = None
    """Write every row to this file."""

    def run(self) -> int:
        """Print a line for each rule; exit code 1 where one is at fault or none was met."""
        name, colon, attribute = self.target.partition(":")
        if not (name and colon and attribute):
            raise ValueError(f"audit: expected module:function, got {self.target!r}; e.g. my_model:loss.")
        sys.path.insert(0, "")
        try:
            fn = getattr(importlib.import_module(name), attribute)
        except ModuleNotFoundError as error:
            raise ValueError(f"audit: {error}; run it where `import {name}` works.") from None
        except AttributeError:
            raise ValueError(f"audit: module {name} has no function {attribute!r}; check its name.") from None
        if not callable(fn):
            raise ValueError(f"audit: {self.target} is no function but {describe(fn)}; name a function without arguments.")
        try:
            signature(fn).bind()
        except TypeError as error:
            raise ValueError(
                f"audit: {self.target} takes arguments ({error}); name a function that calls it with some."
            ) from None
        except ValueError:  # it has no signature
            pass
        expect_folder(self.json)
        report = audit(fn)
        for note in report.notes:
            print(note)
        if not report.ok:
            print(report._replace(notes=()))
        if self.json:
            self.json.write_text(json.dumps(report.to_dict(), indent=1) + "\n")
        return 0 if report.ok else 1
