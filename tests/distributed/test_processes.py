"""nnjax train in several processes over loopback, as people run it: one command for each."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest

import nnjax
from nnjax.commands.train import Train
from nnjax.distributed.processes import Place, found_place, join, listening
from nnjax.train import init_state, restore
from nnjax.train.checkpoint_folder import steps, verify

PROGRAM = """from nnjax.check.running.compiling import compiled_lightly
with compiled_lightly():
 from nnjax.cli import main; main({!r})"""
ALONE = {k: v for k, v in os.environ.items() if not k.startswith(("JAX", "XLA", "SLURM", "OMPI"))} | {"JAX_PLATFORMS": "cpu"}
QUICK = ("--hidden", "8", "--batch-size", "48", "--learning-rate", "0.01")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def command(*options, environment=None):
    argv = ["train", *map(str, options)]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(argv)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=ALONE | (environment or {}),
    )  # fmt: skip


def start(n, *options, each=lambda i: (), port=None):
    """n processes of one run; each(i): the additional options of the i-th."""
    at = f"127.0.0.1:{port or free_port()}"
    own = (("--coordinator", at, "--num-processes", n, "--process-id", i) for i in range(n))
    return [command(*o, *options, *each(i)) for i, o in enumerate(own)]


def ended(processes, seconds=150):
    """(exit code, stdout, stderr) of each, within this time."""
    try:
        outs = [p.communicate(timeout=seconds) for p in processes]
    finally:
        for p in processes:
            p.kill()
    return [(p.returncode, *out) for p, out in zip(processes, outs)]


def sentence(done):
    """The sentence that a process ended with."""
    code, _, err = done
    assert code not in (0, None)
    (line,) = [line for line in err.splitlines() if line]
    return line.removeprefix("nnjax: error: ")


def parameters(folder, hidden=8):
    """The parameters that were saved last."""
    like = init_state(nnjax.mlp([64, hidden, 10], nnjax.relu()).init(jax.random.key(0)), optax.adam(0.1), jax.random.key(0))
    return jax.tree.leaves(restore(folder / "checkpoints", like).state.params)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
@pytest.mark.in_turn
def test_processes_end_with_the_parameters_of_one_process_of_as_many_devices(tmp_path):
    """Two processes can sum two numbers only in one order. With four, gloo sums in another order than XLA within a process."""
    runs = {
        "1 of 2": [command("--devices", 2, *QUICK, "--epochs", 30, "--folder", tmp_path / "1 of 2")],
        "2 of 1": start(2, *QUICK, "--epochs", 30, "--folder", tmp_path / "2 of 1"),
    }
    done = {name: ended(processes) for name, processes in runs.items()}
    runs = {
        "1 of 4": [command("--devices", 4, *QUICK, "--epochs", 2, "--folder", tmp_path / "1 of 4")],
        "2 of 2": start(2, "--devices", 4, *QUICK, "--epochs", 2, "--folder", tmp_path / "2 of 2"),
    }
    done |= {name: ended(processes) for name, processes in runs.items()}
    runs = {"4 of 1": start(4, *QUICK, "--epochs", 2, "--folder", tmp_path / "4 of 1")}
    done |= {name: ended(processes) for name, processes in runs.items()}
    for name, found in done.items():
        assert [code for code, _, _ in found] == [0] * len(found), (name, found)
        assert found[0][1].count(": ok") == 2
        assert not any("epoch" in out for _, out, _ in found[1:])
    assert "on 4 devices (cpu) of 2 processes, mesh data=4" in done["2 of 2"][0][1]
    saved = {name: parameters(tmp_path / name) for name in done}
    assert same(saved["1 of 2"], saved["2 of 1"])
    assert same(saved["2 of 2"], saved["4 of 1"])
    for a, b in zip(saved["1 of 4"], saved["4 of 1"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    history = [json.loads(line) for line in (tmp_path / "2 of 1" / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == list(range(1, 31))
    assert history[-1]["test_accuracy"] >= 0.93


@pytest.mark.slow
@pytest.mark.in_turn
def test_one_of_four_is_killed_and_three_or_one_resume(tmp_path):
    """The others end within a minute, each with a sentence, and the last checkpoint is whole."""
    saved = tmp_path / "checkpoints"
    options = (*QUICK, "--folder", tmp_path, "--save-every", 5)
    processes = start(4, *options, "--epochs", 2000)
    deadline = time.monotonic() + 120
    while len(steps(saved)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    processes[2].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    done = ended(processes, 60)
    assert time.monotonic() - killed < 60
    assert done[2][0] == -signal.SIGKILL
    for i in (0, 1, 3):
        assert re.match(
            rf"train: process {i} of 4 (cannot continue: .*Most likely another|has ended, as another)", sentence(done[i])
        )
    newest = steps(saved)[-1]
    verify(saved / f"{newest:08d}")
    epochs = newest // 26 + 1  # 1,257 examples
    for go_on in (lambda *o: start(3, *o), lambda *o: [command(*o)], lambda *o: start(4, *o)):
        found = ended(go_on(*options, "--resume", "--epochs", epochs))
        assert [code for code, _, _ in found] == [0] * len(found), found
        lines = [line for line in found[0][1].splitlines() if line.startswith("epoch")]
        assert lines[0].startswith(f"epoch {epochs}/{epochs}")
        epochs += 1
    assert steps(saved)[-1] == 26 * (epochs - 1)


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_signal_to_one_process_stops_and_saves_all(tmp_path):
    processes = start(2, *QUICK, "--epochs", 2000, "--folder", tmp_path)
    deadline = time.monotonic() + 120
    while len(steps(tmp_path / "checkpoints")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    done = ended(processes, 60)
    assert [code for code, _, _ in done] == [128 + signal.SIGTERM] * 2
    assert "stopped by SIGTERM after step" in done[0][1]
    verify(tmp_path / "checkpoints" / f"{steps(tmp_path / 'checkpoints')[-1]:08d}")


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_launcher_supplies_the_place():
    """What SLURM's srun sets; JAX finds the coordinator on the first node of the list."""
    slurm = {"SLURM_JOB_ID": str(free_port()), "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2"}
    done = ended(
        [command(*QUICK, "--epochs", 1, environment={**slurm, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}) for i in (0, 1)]
    )
    assert [code for code, _, _ in done] == [0, 0]
    assert done[1][1] == ""
    assert "Gloo" not in done[0][1]
    assert "on 2 devices (cpu) of 2 processes, mesh data=2" in done[0][1]


@pytest.mark.slow
@pytest.mark.in_turn
def test_an_unreachable_coordinator_and_a_missing_process_end_in_time():
    port = free_port()
    at = ("--coordinator", f"127.0.0.1:{port}", "--num-processes", 2, "--connect-seconds", 3)
    start = time.monotonic()
    (alone,) = ended([command(*at, "--process-id", 1)], 60)
    (waits,) = ended([command(*at, "--process-id", 0)], 60)
    assert time.monotonic() - start < 60
    assert sentence(alone) == (
        f"train: process 1 of 2 was not admitted by process 0 at 127.0.0.1:{port} within 3 seconds; check that it runs there, "
        "that all 2 were started, and that no two have the same id."
    )
    assert sentence(waits) == (
        f"train: process 0 of 2 did not see all 2 connect at 127.0.0.1:{port} within 3 seconds; check that all 2 were started, "
        "and that no two have the same id."
    )
    assert waits[1] == "process 0 of 2: waiting for the others, at most 3 s\n"


@pytest.mark.slow
@pytest.mark.in_turn
def test_two_processes_of_one_id_are_refused():
    port = free_port()
    first = command("--coordinator", f"127.0.0.1:{port}", "--num-processes", 3, "--process-id", 0, "--connect-seconds", 12)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    at = ("--coordinator", f"127.0.0.1:{port}", "--num-processes", 3, "--connect-seconds", 5)
    (again,) = ended([command(*at, "--process-id", 0)], 60)
    assert sentence(again).startswith(
        f"train: process 0 of 3 cannot listen at 127.0.0.1:{port}, as another process does: a second one with --process-id 0"
    )
    twice = ended([command(*at, "--process-id", 1), command(*at, "--process-id", 1)], 60)
    said = {sentence(done) for done in twice}
    assert all("no two have the same id" in s or "was replaced by another with id 1" in s for s in said)
    assert "did not see all 3 connect" in sentence(*ended([first], 60))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, None, None), None),
        (("host:1", None, 0), "needs --num-processes; give all three of --coordinator"),
        ((None, None, 0), "needs --coordinator"),
        (("host:1", 2, 2), r"--process-id must be from 0 to 1 for --num-processes 2, got 2"),
        (("host:1", 0, 0), r"num_processes must be a positive int, got 0"),
        (("host", 2, 0), r"--coordinator must be HOST:PORT, the address of process 0, got 'host'"),
        (("host:70000", 2, 0), r"got 'host:70000'"),
    ],
)  # fmt: skip
def test_a_place_is_whole_or_refused(given, message):
    if message is None:
        assert found_place(*given, environment={}) is None
    else:
        with pytest.raises(ValueError, match=message):
            found_place(*given, environment={})


def test_a_place_is_found_where_a_launcher_started_several_processes():
    openmpi = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://127.0.0.1:9",
               "OMPI_COMM_WORLD_LOCAL_RANK": "2"}  # fmt: skip
    assert found_place(None, None, None, openmpi) == Place(None, 4, 2)
    assert found_place("host:1", 2, 1, openmpi) == Place("host:1", 2, 1)
    assert found_place(None, None, None, {**openmpi, "OMPI_COMM_WORLD_SIZE": "1"}) is None
    assert found_place(None, None, None, {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}) is None  # not a step of srun


@pytest.mark.parametrize("coordinator", ["127.0.0.1:9", "127.0.0.2:9", "localhost:9", "[::1]:9"])
def test_process_0_listens_where_it_was_named(ipv6, coordinator):
    if coordinator.startswith("[") and not ipv6:
        pytest.skip("no IPv6 here")
    assert listening(coordinator) == coordinator


def test_process_0_listens_everywhere_where_the_name_is_not_of_this_machine_or_only_of_it(monkeypatch):
    """An address that is translated on the way; an unknown name; a machine's name that means loopback there."""
    assert listening("192.0.2.77:9") == "[::]:9"
    assert listening("host.invalid:9") == "[::]:9"
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 9))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert listening("node0:9") == "[::]:9"
    assert listening("127.0.0.1:9") == "127.0.0.1:9"
    monkeypatch.setenv("JAX_COORDINATOR_BIND_ADDRESS", "127.0.0.3:9")
    assert listening("127.0.0.1:9") == "127.0.0.3:9"


@pytest.mark.in_turn
def test_only_the_named_address_answers():
    port = free_port()
    waits = command("--coordinator", f"127.0.0.1:{port}", "--num-processes", 2, "--process-id", 0, "--connect-seconds", 30)
    try:
        deadline = time.monotonic() + 60
        while not answers("127.0.0.1", port):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert not answers("127.0.0.2", port)
    finally:
        waits.kill()
        waits.communicate()


def answers(host, port):
    with socket.socket() as s:
        s.settimeout(2)
        return s.connect_ex((host, port)) == 0


def test_an_unavailable_port_is_one_sentence(monkeypatch):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))  # in use, though nothing answers there
        at = f"127.0.0.1:{s.getsockname()[1]}"
        with pytest.raises(
            ValueError, match=rf"process 0 of 2 cannot listen at {at}: Address already in use; choose a free port"
        ):
            join(Place(at, 2, 0), 1)
        s.listen()
        with pytest.raises(
            ValueError, match=rf"cannot listen at {at}, as another process does: a second one with --process-id 0"
        ):
            join(Place(at, 2, 0), 1)

    class Refused(socket.socket):
        def bind(self, address):
            if address[1] == 80:
                raise PermissionError(13, "Permission denied")
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Refused)
    with pytest.raises(
        ValueError, match=r"cannot listen at 127\.0\.0\.1:80: Permission denied; choose a free port from 1024 on"
    ):
        join(Place("127.0.0.1:80", 2, 0), 1)


def test_devices_are_shared_evenly():
    with pytest.raises(ValueError, match=r"--devices must be a multiple of the 2 processes, got 3"):
        Train(coordinator="host:1", num_processes=2, process_id=0, devices=3).run()


def slowly(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("each", "message"),
    [
        (lambda i: ("--learning-rate", (0.1, 0.2)[i]), "learning-rate is 0.1 in process 0, 0.2 in process 1; run the same"),
        (lambda i: ("--devices", (4, 2)[i]), "process 0 has 2 devices, but process 1 has 1; give all the same number."),
        slowly(lambda i: ("--mesh", "data=4"), "the mesh needs 4 devices, got 2 of platform cpu; pass --devices 4"),
        slowly(lambda i: ("--batch-size", 33), "the batch size must be a multiple of 2, the devices that share a batch"),
        slowly(lambda i: ("--data", ("digits", "nowhere.npz")[i]), "data is 'digits' in process 0, 'nowhere.npz' in process 1"),
    ],
    ids=["options", "devices", "mesh", "batch", "data"],
)  # fmt: skip
@pytest.mark.slow
@pytest.mark.in_turn
def test_options_that_disagree_or_do_not_fit_end_every_process_with_a_sentence(each, message):
    done = ended(start(2, each=each), 60)
    for i in (0, 1):
        assert message in sentence(done[i])
        assert done[i][0] == 2
