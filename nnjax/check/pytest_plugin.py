"""The pytest plugin: the fixture `assert_vjp`, `--vjp-audit` for a whole suite, and their options."""

from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, in their own group."""
    group = parser.getgroup("nnjax", "gradient equivalence (nnjax)")
    group.addoption("--vjp-dtypes", default=None, help="dtypes that assert_vjp checks in, e.g. float64,float32 (default: all)")
    group.addoption("--vjp-devices", default=None, help="platforms that assert_vjp checks on, e.g. cpu,gpu (default: JAX's)")
    group.addoption("--vjp-seed", default=0, type=int, help="seed of assert_vjp's random cotangents (default: 0)")
    group.addoption("--vjp-audit", action="store_true", help="at the end, check every custom rule that the tests ran through")
    group.addoption("--vjp-audit-report", default=None, metavar="FILE", help="write what --vjp-audit found to this JSON file")
    group.addoption("--vjp-audit-strict", action="store_true", help="with --vjp-audit: fail if a rule is at fault")
    group.addoption("--vjp-audit-seconds", default=600.0, type=float, help="seconds that --vjp-audit may take (default: 600)")
    group.addoption("--vjp-audit-package", default=None, metavar="NAME", help="list the package's rules that no test reached")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """With --vjp-audit, listen from here on, as importing test modules may call rules too."""
    options = {name: config.getoption(f"--vjp-audit-{name}") for name in ("report", "strict", "package")}
    if not config.getoption("--vjp-audit"):
        for name in (name for name, given in options.items() if given):
            raise pytest.UsageError(f"--vjp-audit-{name} needs --vjp-audit; add it.")
        return
    from ..errors import expect_folder
    from .auditing.suite import SuiteAudit

    try:
        expect_folder(options["report"] and Path(options["report"]))
    except (ValueError, OSError) as error:
        raise pytest.UsageError(f"--vjp-audit-report: {error}") from None
    config.pluginmanager.register(SuiteAudit(config), "nnjax_suite_audit")


@pytest.fixture
def assert_vjp(request: pytest.FixtureRequest) -> Any:
    """assert_vjp(f, *args, reference=None, **options): fail with the whole report unless `check_vjp` passes f's rule.

    f may be a Layer, with params and x as arguments, for `check_layer`. Returns the report.
    """
    import jax

    from ..errors import unknown_name
    from ..layer import Layer
    from .layers import check_layer
    from .options import DTYPES
    from .vjp import check_vjp

    dtypes, devices = request.config.getoption("--vjp-dtypes"), request.config.getoption("--vjp-devices")
    chosen: dict[str, Any] = {"seed": request.config.getoption("--vjp-seed")}
    if dtypes:
        for name in dtypes.split(","):
            if name not in DTYPES:
                raise pytest.UsageError(f"--vjp-dtypes: {unknown_name('dtype', name, DTYPES)}")
        chosen["dtypes"] = dtypes.split(",")
    if devices:
        try:
            chosen["devices"] = [device for platform in devices.split(",") for device in jax.devices(platform)]
        except RuntimeError as error:
            raise pytest.UsageError(f"--vjp-devices: {str(error).splitlines()[0]}") from None

    def check(f, *args, **options):
        __tracebackhide__ = True
        checker: Any = check_layer if isinstance(f, Layer) else check_vjp
        report = checker(f, *args, **{**chosen, **options})
        if not report.ok:
            pytest.fail(str(report), pytrace=False)
        return report

    return check
