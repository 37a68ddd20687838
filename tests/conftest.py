import os
import tempfile

import jax
import pytest

from nnjax.check.running.compiling import compiled_lightly
from nnjax.check.vjp import crowded, forget

PROGRAMS = "NNJAX_TESTS_PROGRAMS"

jax.config.update("jax_num_cpu_devices", 8)  # for tests/parallel; the others use the first
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_configure(config):
    """Nearly all the time goes into compiling. A program that was compiled before, for another test of the same worker, is
    read from a folder; and all but the slow tests run programs that XLA has optimised less."""
    if not hasattr(config, "workerinput"):  # the process that outlives its workers
        folder = tempfile.TemporaryDirectory(prefix="nnjax-tests-", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        os.environ[PROGRAMS] = folder.name
    jax.config.update("jax_compilation_cache_dir", f"{os.environ[PROGRAMS]}/{os.getpid()}")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    if config.option.markexpr == "not slow":
        light = compiled_lightly()
        light.__enter__()
        config.add_cleanup(lambda: light.__exit__(None, None, None))


@pytest.fixture(scope="module", autouse=True)
def programs_dropped():
    """A worker runs most of the modules, and all that they compile is more than a process may map."""
    yield
    if crowded():
        forget()


@pytest.fixture
def optimised_less():
    """The same for a slow test."""
    with compiled_lightly():
        yield


@pytest.fixture
def x64():
    """The test runs in float64."""
    with jax.enable_x64(True):
        yield
