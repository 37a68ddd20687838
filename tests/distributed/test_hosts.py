"""nnjax train on two hosts: network namespaces with a cable between them. In both, the host's name means loopback."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from nnjax.train.checkpoint_folder import steps, verify

from .test_processes import ALONE, PROGRAM, QUICK, command, ended, sentence

pytestmark = pytest.mark.slow


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts():
    """The names of two hosts, 10.9.0.1 and 10.9.0.2, and a function that cuts the cable between them."""
    names = [f"nnjax-{os.getpid()}-{i}" for i in (0, 1)]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                ip("-n", name, "link", "set", "lo", "up")
            ip("link", "add", "cable0", "netns", names[0], "type", "veth", "peer", "name", "cable1", "netns", names[1])
            for i, name in enumerate(names):
                ip("-n", name, "addr", "add", f"10.9.0.{i + 1}/24", "dev", f"cable{i}")
                ip("-n", name, "link", "set", f"cable{i}", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', '') or error}")
        yield names, lambda: ip("-n", names[1], "link", "set", "cable1", "down")
    finally:
        for name in names if shutil.which("ip") else ():
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def start(names, *options):
    """One process on each host."""
    argvs = [
        ["train", *map(str, options), "--coordinator", "10.9.0.1:12345", "--num-processes", "2", "--process-id", str(i)]
        for i in range(len(names))
    ]
    return [
        subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, "-c", PROGRAM.format(argv)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ALONE,
        )
        for name, argv in zip(names, argvs)
    ]  # fmt: skip


def test_two_hosts_train_until_the_cable_is_cut_and_one_resumes(hosts, tmp_path):
    names, cut = hosts
    saved = tmp_path / "checkpoints"
    processes = start(names, *QUICK, "--epochs", 100_000, "--folder", tmp_path)
    deadline = time.monotonic() + 120
    while len(steps(saved)) < 2:
        assert time.monotonic() < deadline
        assert [p.poll() for p in processes] == [None, None], [p.communicate() for p in processes]
        time.sleep(0.05)
    cut()
    since = time.monotonic()
    done = ended(processes, 60)
    assert time.monotonic() - since < 60
    for i in (0, 1):
        assert re.match(
            rf"train: process {i} of 2 (cannot continue: .*Most likely another|has ended, as another has ended)",
            sentence(done[i]),
        )
    assert "on 2 devices (cpu) of 2 processes, mesh data=2" in done[0][1]
    newest = steps(saved)[-1]
    verify(saved / f"{newest:08d}")
    epochs = newest // 26 + 2
    ((code, out, _),) = ended([command(*QUICK, "--epochs", epochs, "--folder", tmp_path, "--resume")])
    assert code == 0
    assert f"epoch {epochs}/{epochs}" in out
    history = [json.loads(line)["epoch"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert history == list(range(1, epochs + 1))


def test_hosts_that_do_not_reach_each_other_say_so(hosts, monkeypatch):
    """As behind a firewall: each listens where the other cannot reach it."""
    names, _ = hosts
    deaf = "from nnjax.distributed import processes; processes.own_address = lambda host, port: '127.0.0.1'\n"
    monkeypatch.setattr(f"{__name__}.PROGRAM", deaf + PROGRAM)
    done = ended(start(names, *QUICK, "--epochs", 1), 60)
    said = sorted(sentence(d) for d in done)
    assert any(re.match(r"train: process \d of 2 cannot reach another: .*refused.* All must reach each other", s) for s in said)
