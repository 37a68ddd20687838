"""`nnjax audit`."""

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from ..check.auditing.audit import audited
from ..check.auditing.listening import shortened
from ..check.auditing.named import function_named
from ..check.auditing.package import rules_in
from ..errors import expect_folder


@dataclass
class Audit:
    """Run a function once and check every custom_vjp and custom_jvp rule that it runs through; or list a package's rules."""

    target: tyro.conf.Positional[str]
    """module:function, called without arguments; or a package, whose rules are listed with file and line."""
    json: Path | None = None
    """Write every row, or every rule of a package, to this file."""
    reached: Path | None = None
    """For a package: the report that `pytest --vjp-audit --vjp-audit-report FILE` wrote. Each rule is then listed with its
    verdict, or as never reached."""
    search: float = 0.0
    """Seconds to search, for each rule, for inputs at which it is wrong: ties, zeros, masked rows, other sizes."""

    def run(self) -> int:
        """Print a line for each rule; exit code 1 if a rule is at fault or no rule was reached."""
        expect_folder(self.json)
        if ":" not in self.target:
            return self._package()
        if self.reached:
            raise ValueError("audit: --reached is for a package, as in `nnjax audit optax --reached FILE`; leave it out.")
        if self.search < 0:
            raise ValueError(f"audit: --search must be at least 0 seconds, got {self.search}; 25 is usual.")
        report = audited(function_named("audit", self.target), seconds=self.search, said=lambda found: print(found, flush=True))
        if not report.ok:
            print(report._replace(notes=()))
        elif not self.search:
            print("checked at the values of this run alone; --search 25 looks for inputs at which a rule is wrong")
        if self.json:
            self.json.write_text(json.dumps(report.to_dict(), indent=1) + "\n")
        return 0 if report.ok else 1

    def _package(self) -> int:
        """The rules of a package; exit code 1 if one of those that were reached is at fault."""
        reached = _reached(self.reached)
        sys.path.insert(0, "")
        found, failed = rules_in(self.target)
        rules = []
        for rule in found:
            met = reached.get(rule.defined)
            verdict = "" if self.reached is None else met["verdict"] if met else "never reached"
            rules.append({**rule._asdict(), "verdict": verdict})
            print(f"{rule.name} ({shortened(rule.defined)})" + (f": {verdict}" if verdict else ""))
        for module in failed:
            print(f"not imported: {module}")
        print(f"{len(found)} custom rules in {self.target}" + _counted([r["verdict"] for r in rules] if self.reached else []))
        if self.reached is None and found:
            print("to check them, run `pytest --vjp-audit --vjp-audit-report FILE` in its own tests, then add --reached FILE")
        if self.json:
            self.json.write_text(json.dumps({"rules": rules, "not_imported": failed}, indent=1) + "\n")
        return int(any(rule["verdict"].startswith("FAULT") for rule in rules))


def _counted(verdicts: list[str]) -> str:
    counts = Counter(v.partition(":")[0].partition(",")[0] for v in verdicts)
    return "".join(f", {n} {said}" for said, n in counts.most_common())


def _reached(file: Path | None) -> dict[str, Any]:
    """The rules in a report of a test suite, by the place of their functions."""
    if file is None:
        return {}
    try:
        return {rule["defined"]: rule for rule in json.loads(file.read_text())["rules"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        how = "write one with `pytest --vjp-audit --vjp-audit-report FILE`"
        raise ValueError(f"audit: {file} is not the report of a test suite ({error}); {how}.") from None
