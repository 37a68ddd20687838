"""`nnjax audit`."""

import importlib
import json
import sys
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import tyro

from ..check.audit import audit
from ..errors import describe, expect_folder


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
