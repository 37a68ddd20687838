"""`nnjax bench --compile-for` and `nnjax check --compile-for`."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...data.files import writing
from .compiling import Found, Unit, compile_all
from .figures import Figures
from .programs import DTYPES
from .tables import Cases, draw, line, record, show
from .targets import expect_target


def expect_targets(who: str, names: Sequence[str]) -> None:
    """Raises ValueError for a target that is unknown, that cannot be compiled for here, or that is named twice."""
    for name in names:
        expect_target(name, who)
    if len(set(names)) < len(names):
        raise ValueError(f"{who}: --compile-for must name each target once, got {' '.join(names)}; remove one.")


def bench_ahead(targets: Sequence[str], chosen: Sequence[str], to: Path | None, plot: Path | None) -> int:
    """Compile cases of the bench for each target."""
    start = time.perf_counter()

    def said(target: str, unit: Unit, found: Found) -> None:
        print(f"{target}  {line(unit[1][0], found)}", flush=True)

    every = compile_all(targets, [("bench", (name,)) for name in chosen], said)
    tables = {target: dict(zip(chosen, found)) for target, found in every.items()}
    for target, cases in tables.items():
        show(target, cases)
    print(f"{time.perf_counter() - start:.0f} s")
    _write(to, tables)
    if plot:
        draw(tables, plot)
    return 0


def _write(to: Path | None, tables: Mapping[str, Cases]) -> None:
    """Write the whole file, or none of it."""
    if to is not None:
        with writing(to) as draft:
            draft.write_text(json.dumps(record(tables), indent=1) + "\n")


def rules_ahead(targets: Sequence[str], function: str, to: Path | None) -> int:
    """Compile the rules that module:function runs through, for each target; exit code 1 if there are none."""
    every = compile_all(targets, [("function", (function,))], lambda *_: None)
    tables = {}
    for target, (found,) in every.items():
        rules: dict[str, Found] = {}
        for label, figures in found.items():
            rules.setdefault(label.rpartition(":")[0], {})[label.rpartition(": ")[2]] = figures
        rules.pop("", None)
        tables[target] = rules
        print(f"{target}, compiled but not run; in brackets: rule / autodiff of its definition")
        for name, sides in rules.items():
            print(f"  {line(name, sides, 'rule', 'definition')}")
        if "" in found:
            print(f"  {found['']}")
    _write(to, tables)
    if not any(tables.values()):
        print(f"{function} ran through no custom_vjp or custom_jvp function")
    return 0 if all(tables.values()) else 1


def check_ahead(targets: Sequence[str], chosen: Sequence[str], to: Path | None) -> int:
    """Compile cases of the check in every dtype; exit code 1 if one does not compile."""
    start = time.perf_counter()

    def said(target: str, unit: Unit, found: Found) -> None:
        failed = {label: why for label, why in found.items() if isinstance(why, str)}
        took = sum(f.compile_seconds for f in found.values() if isinstance(f, Figures))
        print(f"{'FAILED' if failed else 'ok':6} {target:8} {unit[1][0]:42} {', '.join(found)}, {took:.1f} s", flush=True)
        print("".join(f"       {label}: {why}\n" for label, why in failed.items()), end="")

    every = compile_all(targets, [("check", (name, *DTYPES)) for name in chosen], said)
    tables = {target: dict(zip(chosen, found)) for target, found in every.items()}
    programs = [f for cases in tables.values() for found in cases.values() for f in found.values()]
    failed = sum(isinstance(f, str) for f in programs)
    print(f"{len(programs)} programs compiled for {', '.join(targets)}, {failed} failed; {time.perf_counter() - start:.0f} s")
    _write(to, tables)
    return 1 if failed else 0
