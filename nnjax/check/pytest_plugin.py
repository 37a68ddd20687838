"""The pytest plugin: the fixture `assert_vjp`, and the options --vjp-dtypes, --vjp-devices, --vjp-seed."""

from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, in a group of their own."""
    group = parser.getgroup("nnjax", "gradient equivalence (nnjax)")
    group.addoption("--vjp-dtypes", default=None, help="dtypes that assert_vjp checks in, e.g. float64,float32 (default: all)")
    group.addoption("--vjp-devices", default=None, help="platforms that assert_vjp checks on, e.g. cpu,gpu (default: JAX's)")
    group.addoption("--vjp-seed", default=0, type=int, help="seed of assert_vjp's random cotangents (default: 0)")


@pytest.fixture
def assert_vjp(request: pytest.FixtureRequest) -> Any:
    """assert_vjp(f, *args, reference=None, **options): fail with the whole report unless `check_vjp` finds f's rule right.

    f may be a Layer, with params and x as arguments, for `check_layer`. Returns the report.
    """
    import jax

    from ..errors import unknown_name
    from ..layer import Layer
    from .options import DTYPES
    from .vjp import check_layer, check_vjp

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
