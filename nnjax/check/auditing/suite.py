"""`pytest --vjp-audit`: every custom rule that a test suite runs through, checked when the suite has ended.

While tests run nothing is checked: calls are counted, and a few of them kept. Under pytest-xdist each worker checks its own
rules, and one table shows all the results.
"""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .listening import Heard, listening, shortened

KEPT = 1 << 20  # bytes: arguments of one call that are larger are not kept
OPEN = ("not checked", "not proved")  # verdicts that settle nothing start with these


class SuiteAudit:
    """The plugin object of one process; the controller of workers only collects."""

    def __init__(self, config: pytest.Config):
        self.config = config
        self.heard: list[Heard] = []
        self.rules: list[dict[str, Any]] = []
        self.listening = ExitStack()
        self.seconds = 0.0
        if not self._controls_workers():
            self.listening.enter_context(listening(self.heard, KEPT))

    def _controls_workers(self) -> bool:
        return not hasattr(self.config, "workerinput") and bool(getattr(self.config.option, "numprocesses", None))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Check the recorded rules; a worker sends the results to its controller."""
        self.listening.close()
        start = time.perf_counter()
        self._check()
        self.seconds += time.perf_counter() - start
        to_controller: dict[str, Any] | None = getattr(self.config, "workeroutput", None)
        if to_controller is not None:
            to_controller["nnjax_rules"] = json.dumps([self.rules, self.seconds])
            return
        self.rules = _once(self.rules)
        report = self.config.getoption("--vjp-audit-report")
        if report:
            Path(report).write_text(json.dumps({"rules": self.rules, "seconds": self.seconds}, indent=1) + "\n")
        if self.config.getoption("--vjp-audit-strict") and exitstatus == 0 and self._faults():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _faults(self) -> list[dict[str, Any]]:
        return [rule for rule in self.rules if rule["verdict"].startswith("FAULT")]

    def _check(self) -> None:
        from .audit import examined

        option: Any = self.config.getoption
        limit = time.perf_counter() + option("--vjp-audit-seconds")
        for entry in self.heard:
            if time.perf_counter() > limit:
                verdict = "not checked: out of time; raise --vjp-audit-seconds"
            else:
                verdict = examined(entry, option("--vjp-seed")).verdict
            self.rules.append({**entry.title._asdict(), "calls": entry.calls[0], "verdict": verdict})

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        """Collect the results of a worker."""
        rules, seconds = json.loads(getattr(node, "workeroutput", {}).get("nnjax_rules", "[[], 0.0]"))
        self.rules += rules
        self.seconds = max(self.seconds, seconds)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the table, gravest verdicts first, and the rules of a package that were never reached."""
        write = terminalreporter.write_line
        terminalreporter.section("custom rules (nnjax)")
        if not self.rules:
            write("no custom_vjp or custom_jvp function was called")
        for rule in self.rules:
            calls = f"{rule['calls']} call{'s' if rule['calls'] > 1 else ''}"
            red = {"red": True} if rule["verdict"].startswith("FAULT") else {}
            write(f"{rule['name']} ({shortened(rule['where'])}): {calls}, {rule['verdict']}", **red)
        package = self.config.getoption("--vjp-audit-package")
        if package:
            from .package import never_reached

            for rule in never_reached(package, {r["defined"] for r in self.rules}):
                write(f"{rule.name} ({shortened(rule.defined)}): never reached")
        if self.rules:
            said = f"{len(self.rules)} rules checked in {self.seconds:.0f} s: {len(self._faults())} at fault"
            write(said + f", {sum(r['verdict'].startswith(OPEN) for r in self.rules)} not settled")


def _once(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge rules that several workers reached, each with its gravest verdict; the gravest ones first."""
    from .verdict import VERDICTS

    def gravity(rule):
        return next(i for i, o in enumerate(VERDICTS) if rule["verdict"].startswith(o))

    found: dict[Any, dict[str, Any]] = {}
    for rule in sorted(rules, key=gravity):
        key = rule["name"], rule["where"]
        first = found.setdefault(key, {**rule, "calls": 0})
        first["calls"] += rule["calls"]
    return list(found.values())
