import contextlib
import ctypes
import gc
import itertools
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import jax
import pytest

from nnjax.check.layers import crowded, forget
from nnjax.check.running.compiling import compiled_lightly

PROGRAMS = "NNJAX_TESTS_PROGRAMS"
TURN, TURNS, CHOSEN = "NNJAX_TESTS_TURN", 7, "NNJAX_TESTS_CHOSEN"
MUCH = 3 << 29  # bytes of memory beyond which a worker drops its compiled programs
LARGEST: list[int] = []  # resident memory of each worker, in kB
ENDED = itertools.count(1)  # the tests of this worker

jax.config.update("jax_num_cpu_devices", 8)  # for tests/distributed; the others use the first
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_configure(config):
    """Nearly all the time goes into compiling. A program that was compiled for another test of the same worker is read from a
    folder; and tests run programs that XLA has optimised less, except those that use `optimised`."""
    if not hasattr(config, "workerinput"):  # the process that outlives its workers
        folder = tempfile.TemporaryDirectory(prefix="nnjax-tests-", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        os.environ[PROGRAMS] = folder.name
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder.name}/of-commands"  # the user's cache stays
        os.environ.setdefault(TURN, str(date.today().toordinal() % TURNS))  # the same day in all workers
        os.environ[CHOSEN] = "1" if config.args_source == pytest.Config.ArgsSource.ARGS else ""
    jax.config.update("jax_compilation_cache_dir", f"{os.environ[PROGRAMS]}/{os.getpid()}")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    light = compiled_lightly()
    light.__enter__()
    config.add_cleanup(lambda: light.__exit__(None, None, None))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Every sixth case of a test that `repeats` is not slow. Each day runs every seventh of the tests that are `in_turn`, so
    that a week runs them all. NNJAX_TESTS_TURN=all runs them at once, and so do files that are named, but for slow ones."""
    for _, alike in itertools.groupby(items, lambda item: item.nodeid.partition("[")[0]):
        for i, item in enumerate(alike):
            if i % 6 and item.get_closest_marker("repeats"):
                item.add_marker("slow")
                item.add_marker("in_turn")
    turn, chosen = os.environ[TURN], os.environ[CHOSEN]
    if turn == "all":
        return
    for slow in (True, False):
        repeated = [i for i in items if i.get_closest_marker("in_turn") and (i.get_closest_marker("slow") is not None) == slow]
        if chosen if not slow else config.option.markexpr in ("", "not slow"):
            continue
        out = {item for i, item in enumerate(repeated) if i % TURNS != int(turn) % TURNS}
        config.hook.pytest_deselected(items=list(out))
        items[:] = [item for item in items if item not in out]


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["resident"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def pytest_testnodedown(node, error):
    LARGEST.append(getattr(node, "workeroutput", {}).get("resident", 0))


def pytest_terminal_summary(terminalreporter):
    largest = max(LARGEST, default=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    terminalreporter.write_line(f"largest resident memory of a worker: {largest / 2**20:.2f} GB")


def resident() -> int:
    """The bytes of memory that this process uses now, 0 if the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


@pytest.fixture(autouse=True)
def programs_dropped():
    """A worker runs many modules, which together compile more than a process should keep."""
    yield
    ended = next(ENDED)
    if resident() > MUCH or (ended % 8 == 0 and crowded(0.75)):  # counting the maps takes milliseconds
        forget()
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what was freed


@pytest.fixture
def optimised():
    """The test computes for longer than it compiles."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def x64():
    """The test runs in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def ipv6():
    """Whether this machine has the loopback of IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium of this system, driven by playwright: nothing is downloaded. $CHROMIUM names another one.

    Of a module, not of the session: while it is there an event loop is running, which other modules would trip over.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(names)} is installed here, and $CHROMIUM names no other: pages are not tried in one")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pages are not tried in a browser")
    flags = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]  # as root it has no sandbox
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def run_tests_in():
    """run_tests_in(folder, *options) -> (exit code, output) of a separate pytest on the tests in a folder."""

    def run(folder, *options):
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture
def run_blocks(capsys):
    """run_blocks(page, [(language, text), ...]) -> (what was printed, the names in Python), the blocks of a page run one after
    another, as a reader would: Python in one namespace, sh in the folder in which it runs."""

    def run(page, blocks):
        namespace: dict = {}
        commands = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        for number, (language, text) in enumerate(blocks, 1):
            if language == "python":
                exec(compile(text, f"{page}, block {number}", "exec"), namespace)
            else:
                done = subprocess.run(["bash", "-ec", text], env=commands, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{page}, block {number}: {text}{done.stdout}{done.stderr}"
                print(done.stdout)
        return capsys.readouterr().out, namespace

    return run


@pytest.fixture
def save_run():
    """save_run(folder, record, params, steps=(1,), accuracies=(0.5,)): a run as `nnjax train --folder` leaves it; the
    parameters of a later step are that multiple of params."""

    def save(folder, record, params, steps=(1,), accuracies=(0.5,), average=None):
        from nnjax.train import Epoch, init_state, make_optimizer
        from nnjax.train.run import Checkpoints, Progress, keep
        from nnjax.train.trained.record import evaluated_at, keep_record

        folder.mkdir(parents=True, exist_ok=True)
        optimizer = make_optimizer("sgd", 0.1, average=average)
        state = init_state(params, optimizer, jax.random.key(0))
        keep_record(folder, record._replace(parameters=evaluated_at(state)))
        history = ()
        for step, accuracy in zip(steps, accuracies):
            history += (Epoch(len(history) + 1, 0.1, accuracy, accuracy, 0.1),)
            now = state._replace(params=jax.tree.map(lambda p, step=step: p * jax.numpy.float32(step), params))
            keep(Checkpoints(folder / "checkpoints", configuration={}), now, step, Progress(history))
        return folder

    return save
