"""Join the other processes of a run, through `jax.distributed`, before JAX is first used."""

import errno
import ipaddress
import os
import re
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ..errors import expect_positive
from ..train.processes import gathered, is_first
from .gloo import listen_at, own_address
from .last_words import SPOKEN, Sentences, watch

CONNECT = 120  # seconds for all processes to connect
LINGER = 3  # seconds that process 0 waits at the end, as its exit would cut the others short
SILENCE = 30  # seconds without a heartbeat after which a process counts as dead
# The variables that SLURM's srun and Open MPI's mpirun set, each all of its own: the number of processes, and of this one.
LAUNCHERS: dict[str, tuple[str, ...]] = {
    "SLURM": ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_LOCALID"),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_LOCAL_RANK"),
}

AGAIN = "see its message. To resume a saved run, add --resume to the same command."
OPEN = (
    "All must reach each other at any port: open the ports between the machines, and give the address of process 0 in numbers."
)
STATUS = re.compile(r"[A-Z_]{5,}: ")  # prefix of messages from C++, some of which come as a ValueError


class Place(NamedTuple):
    """The place of this process: the address of process 0, or None if the launcher tells JAX; how many there are; its index."""

    coordinator: str | None
    count: int
    index: int

    def __str__(self) -> str:
        return f"process {self.index} of {self.count}"


def found_place(
    coordinator: str | None, count: int | None, index: int | None, environment: Mapping[str, str] = os.environ
) -> Place | None:
    """The place of this process from the given options, or from its launcher; None if it runs alone.

    Raises ValueError for options that are incomplete or inconsistent.
    """
    if (coordinator, count, index) == (None, None, None):
        return _launched(environment)
    given = {"--coordinator": coordinator, "--num-processes": count, "--process-id": index}
    for option in (name for name, value in given.items() if value is None):
        raise ValueError(f"train: a run of several processes also needs {option}; give all three of {', '.join(given)}.")
    assert coordinator is not None
    assert count is not None
    assert index is not None
    expect_positive("train", num_processes=count)
    if not 0 <= index < count:
        raise ValueError(f"train: --process-id must be from 0 to {count - 1} for --num-processes {count}, got {index}.")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"train: --coordinator must be HOST:PORT, the address of process 0, got {coordinator!r}.")
    return Place(coordinator, count, index)


def _launched(environment: Mapping[str, str]) -> Place | None:
    for names in LAUNCHERS.values():
        if all(name in environment for name in names) and int(environment[names[0]]) > 1:
            return Place(None, int(environment[names[0]]), int(environment[names[1]]))
    return None


def join(place: Place, seconds: int) -> None:
    """Wait until all processes have connected, at most about this many seconds; then they belong together until the end.

    JAX ends a process that cannot join, or that has lost another, without running Python: `watch` prints the reason instead.
    Raises ValueError if process 0 cannot listen at its port, which may be in use or not permitted.
    """
    expect_positive("train", connect_seconds=seconds)
    listens = None
    if place.index == 0 and place.coordinator is not None:
        listens = listening(place.coordinator)
        _expect_free(place, listens)
    if place.index == 0:
        print(f"{place}: waiting for the others, at most {seconds} s", flush=True)
    watch(sentences(place, seconds))
    jax.config.update("jax_enable_preemption_service", False)  # we handle SIGTERM ourselves
    jax.distributed.initialize(
        place.coordinator, place.count, place.index, coordinator_bind_address=listens, initialization_timeout=seconds,
        heartbeat_timeout_seconds=SILENCE,
    )  # fmt: skip
    if place.coordinator is not None and (address := own_address(*_host_and_port(place.coordinator))):
        listen_at(address)


def listening(coordinator: str) -> str:
    """The address at which process 0 listens: the given one if it belongs to this machine, else all addresses, at this port.

    On many machines their own name means a loopback address, which others cannot reach, so such a name is not used.
    """
    if named := os.environ.get("JAX_COORDINATOR_BIND_ADDRESS"):  # JAX's own variable
        return named
    host, port = _host_and_port(coordinator)
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        loopback = any(ipaddress.ip_address(address.split("%")[0]).is_loopback for address in found)
        named_so = host == "localhost" or host in found
        for address in found:
            _bind(address, 0)
    except OSError:
        return f"[::]:{port}"
    return coordinator if named_so or not loopback else f"[::]:{port}"


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _bind(host: str, port: int) -> None:
    """Raise OSError if nothing can listen there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host, port))


def _expect_free(place: Place, listens: str) -> None:
    """Raise ValueError, before JAX tries, if process 0 cannot listen at this address."""
    assert place.coordinator is not None
    remedy = "give each process its own id, and each run its own port"
    cannot = f"train: {place} cannot listen at {place.coordinator}"
    if _answers(place.coordinator):
        raise ValueError(f"{cannot}, as another process does: a second one with --process-id 0, or another run; {remedy}.")
    host, port = _host_and_port(listens)
    try:
        for address in {str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}:
            _bind(address, port)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:  # [::] on a machine without IPv6: JAX can handle it
            return
        raise ValueError(f"{cannot}: {error.strerror}; choose a free port from 1024 on in --coordinator.") from None


def _answers(address: str) -> bool:
    try:
        with socket.create_connection(_host_and_port(address), timeout=1):
            return True
    except OSError:
        return False


def sentences(place: Place, seconds: int) -> Sentences:
    """The sentences for JAX's last messages, by pattern."""
    at = f" at {place.coordinator}" if place.coordinator else ""
    missed, check = "was not admitted by process 0", "it runs there, that "
    if place.index == 0:
        missed, check = f"did not see all {place.count} connect", ""
    found = {
        "newer incarnation": f"was replaced by another with id {place.index}; give each process its own id.",
        "Unexpected task registered": "is one too many: --num-processes of process 0 is smaller; give all the same.",
        "unexpectedly tried to connect": "has ended, as a process came with the id of another, or was started again; restart "
        "all, each with its own id.",
        "RegisterTask": f"{missed}{at} within {seconds} seconds; check that {check}all {place.count} were started, and that no "
        "two have the same id.",
        "": f"has ended, as another has ended or does not respond; {AGAIN}",
    }
    return [(pattern, f"train: {place} {said}") for pattern, said in found.items()]


def expect_alike(options: Mapping[str, Any]) -> None:
    """Raise ValueError, in every process, unless all have the same options, versions and number of devices."""
    devices = Counter(device.process_index for device in jax.devices())
    for index, n in devices.items():
        if n != devices[0]:
            raise ValueError(
                f"train: process 0 has {devices[0]} devices, but process {index} has {n}; give all the same number."
            )
    here = {name.replace("_", "-"): repr(str(v) if isinstance(v, Path) else v) for name, v in options.items()}
    here |= {"version of " + name: metadata.version(name) for name in ("nnjax", "jax")}
    with _without_stdout():  # Gloo writes a greeting there when processes first connect
        first, *others = gathered(here)
    for index, there in enumerate(others, 1):
        differ = [f"{name} is {first[name]} in process 0, {there[name]} in process {index}"
                  for name in first if first[name] != there[name]]  # fmt: skip
        if differ:
            raise ValueError(f"train: {'; '.join(differ)}; run the same command in all processes.")


@contextmanager
def _without_stdout() -> Iterator[None]:
    """Discard everything written to stdout in this context, also by C++."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def together(place: Place, run: Callable[[], int]) -> int:
    """run(), printing only in process 0. If it fails in one process all end, each with a sentence.

    A process that fails ends at once: Python's normal exit would wait for the others, which may wait for this one.
    """
    try:
        with redirect_stdout(sys.stdout if is_first() else open(os.devnull, "w", encoding="utf-8", errors="replace")):
            return run()
    except KeyboardInterrupt:
        said, code = f"train: {place} was interrupted.", 130
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        if "Gloo context initialization failed" in reason:
            said, code = f"train: {place} cannot reach another: {reason.rsplit('] ', 1)[-1]}. {OPEN}", 1
        elif isinstance(error, jax.errors.JaxRuntimeError) or STATUS.match(reason):
            said, code = f"train: {place} cannot continue: {reason}. Most likely another has ended; {AGAIN}", 1
        elif isinstance(error, (ValueError, OSError, FloatingPointError)):
            said, code = f"{error} ({place})", 2
        else:
            traceback.print_exc()
            said, code = f"train: {place} has failed; see above.", 1
    print(f"{SPOKEN}{said}", file=sys.stderr, flush=True)
    time.sleep(LINGER if place.index == 0 else 0)
    os._exit(code)
