import json
import os
import platform
import subprocess
import sys
import time

import filelock
import jax
import pytest

from nnjax.commands.training import compilation
from nnjax.commands.training.compilation import keep_programs

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture
def unset(tmp_path, monkeypatch):
    """No folder has been chosen, and the usual one belongs to the test."""
    before = {name: jax.config.values[name] for name in OPTIONS}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(compilation, "cache_folder", lambda: tmp_path / "cache")
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.filterwarnings("ignore")
def test_the_usual_folder_is_of_the_project_limited_and_the_user_s_alone(unset, tmp_path):
    folder = keep_programs(None, pytest.fail)
    assert folder is not None
    assert folder.parent == tmp_path / "cache" / "programs"
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert jax.config.jax_compilation_cache_max_size == compilation.LARGEST
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.filterwarnings("ignore")
def test_each_kind_of_processor_has_a_folder_of_its_own(unset, tmp_path, monkeypatch):
    first = keep_programs(str(tmp_path / "mine"), pytest.fail)
    assert keep_programs(str(tmp_path / "mine"), pytest.fail) == first
    monkeypatch.setattr(platform, "machine", lambda: "another")
    assert keep_programs(str(tmp_path / "mine"), pytest.fail) != first


def test_a_folder_of_the_user_s_choice_by_jax_s_own_setting_stays(unset, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
    assert keep_programs(None, pytest.fail) is None
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "theirs")
    assert not (tmp_path / "cache").exists()


def test_off_is_off(unset):
    assert keep_programs("off", pytest.fail) is None
    assert not jax.config.jax_enable_compilation_cache


def test_what_cannot_be_a_folder_is_refused_and_what_cannot_be_used_is_reported(unset, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"--compilation-cache must be a folder, got the file .*file;"):
        keep_programs(str(tmp_path / "file"), pytest.fail)
    told = []
    assert keep_programs(str(tmp_path / "file" / "below"), told.append) is None
    monkeypatch.setattr(compilation, "PATIENCE", 0.1)
    folder = tmp_path / "held" / compilation._machine()
    folder.mkdir(parents=True)
    with filelock.FileLock(folder / compilation.LOCK):
        assert keep_programs(str(tmp_path / "held"), told.append) is None
    assert all("compiled programs are not kept for the next run" in note for note in told)
    assert len(told) == 2
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.filterwarnings("ignore")
def test_what_a_killed_run_left_half_written_is_removed(unset, tmp_path):
    folder = keep_programs(str(tmp_path), pytest.fail)
    assert folder is not None
    for name in ("whole-cache", "whole-atime", "half-cache"):
        (folder / name).write_bytes(time.time_ns().to_bytes(8, "little"))
    keep_programs(str(tmp_path), pytest.fail)
    assert {p.name for p in folder.iterdir()} - {compilation.LOCK} == {"whole-cache", "whole-atime"}


PROGRAM = """
import json, sys
from pathlib import Path
import jax
from nnjax.commands.training import compilation
from nnjax.commands.train import Train

compilation.SLOW, compilation.LARGEST = 0.0, int(sys.argv[2])
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None)
Train(epochs=2, hidden=(8,), quiet=True, compilation_cache=sys.argv[1], folder=Path(sys.argv[3])).run()
print(json.dumps({"hits": len(hits)}))
"""


def started(*args):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    command = [sys.executable, "-c", PROGRAM, *map(str, args)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process):
    out, err = process.communicate()
    assert (process.returncode, err) == (0, ""), err
    return json.loads(out.splitlines()[-1])["hits"]


def trained(folder):
    """The saved parameters, and the record."""
    from nnjax.train.checkpoint_folder import manifest_of, steps

    last = folder / "checkpoints" / f"{steps(folder / 'checkpoints')[-1]:08d}"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return manifest_of(last)["leaves"], [(line["loss"], line["validation_accuracy"]) for line in lines]


@pytest.mark.slow
@pytest.mark.in_turn
def test_two_cold_runs_at_once_and_a_warm_one_end_in_the_same_bits(tmp_path):
    both = [started(tmp_path / "programs", 1 << 27, tmp_path / name) for name in ("a", "b")]
    cold = [ended(process) for process in both]
    warm = ended(started(tmp_path / "programs", 1 << 27, tmp_path / "c"))
    assert warm > max(20, *cold)
    assert trained(tmp_path / "a") == trained(tmp_path / "b") == trained(tmp_path / "c")


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_cache_stays_within_the_limit(tmp_path):
    ended(started(tmp_path / "programs", 200_000, tmp_path / "a"))
    kept = [p.stat().st_size for p in (tmp_path / "programs").rglob("*-cache")]
    assert len(kept) > 3
    assert sum(kept) <= 200_000
