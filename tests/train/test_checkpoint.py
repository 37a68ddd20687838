import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nnjax
from nnjax.train import CheckpointError, checkpoint, checkpoint_folder, init_state, restore, save


class Extra(NamedTuple):
    flag: jax.Array
    low: jax.Array
    none: None = None


def trained(width: int = 5, optimizer=None):
    params = nnjax.mlp([4, width, 3], nnjax.tanh()).init(jax.random.key(0))
    return init_state(params, optimizer or optax.adam(0.01), jax.random.key(7))


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.in_turn
def test_a_state_comes_back_bit_for_bit(tmp_path):
    extra = Extra(jnp.array([True, False]), jnp.linspace(0, 1, 5, dtype=jnp.bfloat16))
    state = (trained(), extra, jnp.zeros((0, 3)), jax.random.key(3, impl="rbg"))
    save(tmp_path, state, step=12, configuration={"model": "mlp", "hidden": (5,)}, metrics={"loss": 0.25})
    found = restore(tmp_path, state, configuration={"model": "mlp", "hidden": (5,)})
    assert_equal(found.state, state)
    assert (found.step, found.metrics, found.skipped) == (12, {"loss": 0.25}, ())
    assert found.configuration == {"model": "mlp", "hidden": [5]}


@pytest.mark.in_turn
def test_the_newest_and_the_best_are_kept(tmp_path):
    for step, accuracy in ((1, 0.2), (2, 0.9), (3, 0.3), (4, float("nan")), (5, 0.9), (6, 0.1)):
        save(tmp_path, trained(), step=step, metrics={"accuracy": accuracy}, keep=2, best="accuracy")
    assert checkpoint_folder.steps(tmp_path) == [2, 5, 6]
    save(tmp_path, trained(), step=6, keep=1)
    assert checkpoint_folder.steps(tmp_path) == [6]


def test_what_differs_is_named(tmp_path):
    save(tmp_path, trained(), step=1, configuration={"optimizer": "adam", "data": "digits"})
    with pytest.raises(CheckpointError, match=r"different run: optimizer was 'adam', is 'sgd'; data was 'digits', is None"):
        restore(tmp_path, trained(), configuration={"optimizer": "sgd"})
    with pytest.raises(
        CheckpointError, match=r"does not fit this run: params\[0\].w was float32 \(4, 5\), is float32 \(4, 6\)\. Resume"
    ):
        restore(tmp_path, trained(6))
    with pytest.raises(CheckpointError, match=r"opt_state\[0\].count was int32 \(\), is absent"):
        restore(tmp_path, trained(optimizer=optax.sgd(0.1)))


def test_a_program_may_get_new_options(tmp_path):
    save(tmp_path, trained(), step=1, configuration={"optimizer": "adam", "blocks": 3})
    now, defaults = {"optimizer": "adam", "clip": None, "decay": 0.5}, {"clip": None, "decay": 0.5, "blocks": 1}
    assert restore(tmp_path, trained(), configuration=now, defaults=defaults).step == 1  # blocks does not matter to this run
    with pytest.raises(CheckpointError, match=r"different run: blocks was 3, is 2; decay was 0.5, is 0.25"):
        restore(tmp_path, trained(), configuration={**now, "decay": 0.25, "blocks": 2}, defaults=defaults)
    with pytest.raises(CheckpointError, match=r"different run: clip was None, is 1.0"):
        restore(tmp_path, trained(), configuration={"optimizer": "adam", "blocks": 3, "clip": 1.0})
    with pytest.raises(TypeError, match="defaults must be a dictionary"):
        restore(tmp_path, trained(), configuration=now, defaults=["clip"])


def test_a_folder_without_checkpoints_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match=r"no valid checkpoint in .*: none was saved there"):
        restore(tmp_path / "none", trained())


def test_steps_and_metrics_of_numpy_and_jax_are_saved(tmp_path):
    given = {"a": np.float32(0.5), "b": [jnp.int32(3), np.arange(2)], "c": {"d": tmp_path}, "e": jnp.bfloat16(0.25)}
    state = {"w": jnp.ones(2)}
    for step, k in ((np.int64(7), np.int32(2)), (jnp.int32(8), jnp.int32(2)), (np.array(9), 2)):
        path = save(str(tmp_path), state, step=step, metrics=given, configuration=given, keep=k, best="a")
        assert path == tmp_path / f"{int(step):08d}"
    found = restore(tmp_path, state, configuration={**given, "a": 0.5, "c": {"d": str(tmp_path)}})
    assert (found.step, type(found.step)) == (9, int)
    assert found.metrics == found.configuration == {"a": 0.5, "b": [3, [0, 1]], "c": {"d": str(tmp_path)}, "e": 0.25}
    assert checkpoint_folder.steps(tmp_path) == [7, 8, 9]  # the newest two, and the first of the best


@pytest.mark.parametrize("step", [-1, np.int64(-3), 1.0, np.float32(1), "1", None, True, np.bool_(True), jnp.arange(2)])
def test_an_invalid_step_is_refused_before_anything_is_written(tmp_path, step):
    with pytest.raises(ValueError, match=r"save: step must be a whole number of at least 0, got "):
        save(tmp_path / "run", {"w": jnp.ones(2)}, step=step)
    assert not (tmp_path / "run").exists()


def test_what_json_cannot_carry_is_named_before_anything_is_written(tmp_path):
    for name, given in (("metrics", {"a": {1, 2}}), ("configuration", {"a": object()}), ("metrics", {"a": jax.random.key(0)})):
        with pytest.raises(TypeError, match=rf"save: {name}\['a'\] cannot be saved as JSON, got"):
            save(tmp_path / "run", {"w": jnp.ones(2)}, step=1, **{name: given})
    with pytest.raises(TypeError, match=r"save: metrics must be a dictionary, got list"):
        save(tmp_path / "run", {"w": jnp.ones(2)}, step=1, metrics=[("a", 1)])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("step", [1, 0, 4])
def test_what_was_just_saved_stays_among_larger_steps(tmp_path, step):
    state = {"w": jnp.ones(2)}
    for later in (5, 6, 7):
        save(tmp_path, state, step=later, metrics={"accuracy": later / 10})
    save(tmp_path, {"w": jnp.full(2, 9.0)}, step=step, keep=2, best="accuracy", metrics={"accuracy": 0.1})
    assert checkpoint_folder.steps(tmp_path) == [step, 6, 7]
    checkpoint_folder.verify(tmp_path / f"{step:08d}")
    save(tmp_path, state, step=8, keep=2)
    assert checkpoint_folder.steps(tmp_path) == [7, 8]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        path = save(tmp_path / "run", {"w": jnp.ones(2)}, step=1)
    finally:
        os.umask(before)
    modes = {oct(p.stat().st_mode & 0o777) for p in (tmp_path / "run", path, *path.rglob("*")) if p.is_dir()}
    assert modes == {oct(0o777 & ~umask)}
    assert {oct(p.stat().st_mode & 0o777) for p in path.glob("manifest*")} == {oct(0o666 & ~umask)}
    assert all(p.stat().st_mode & 0o777 & umask == 0 and p.stat().st_mode & 0o444 & ~umask for p in path.rglob("*"))


@pytest.mark.parametrize("at", ["mkdir", "write_text", "rename", "state"])
def test_a_full_disk_at_any_file_is_one_sentence(tmp_path, monkeypatch, at):
    save(tmp_path, trained(), step=1)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    if at == "rename":
        monkeypatch.setattr(checkpoint_folder.os, "rename", full)
    elif at == "state":
        monkeypatch.setattr(checkpoint, "_orbax", lambda: SimpleNamespace(save=full))
    elif at == "mkdir":
        monkeypatch.setattr(checkpoint, "new_folder", full)
    else:
        monkeypatch.setattr(Path, at, full)
    with pytest.raises(CheckpointError, match=r"step 2 could not be saved in .*No space left on device; .*step 1 is whole"):
        save(tmp_path, trained(), step=2)
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000001"]
    assert restore(tmp_path, trained()).step == 1


@pytest.mark.in_turn
def test_fifty_flipped_bits_are_all_noticed_and_the_previous_valid_checkpoint_is_used(tmp_path):
    state = trained()
    save(tmp_path, state, step=1)
    later = state._replace(step=state.step + 1)
    newest = save(tmp_path, later, step=2)
    files = [p for p in newest.rglob("*") if p.is_file() and p.stat().st_size]
    sizes = np.array([p.stat().st_size for p in files])
    rng = np.random.default_rng(0)
    for number in range(50):
        # Every file in turn, then anywhere: the arrays are most of the bytes.
        path = files[number] if number < len(files) else files[rng.choice(len(files), p=sizes / sizes.sum())]
        whole = path.read_bytes()
        position = int(rng.integers(len(whole)))
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        found = restore(tmp_path, state)
        assert found.step == 1, path
        assert "damaged" in found.skipped[0]
        path.write_bytes(whole)
    assert restore(tmp_path, state).step == 2


@pytest.mark.parametrize("change", ["missing", "added", "cut", "no manifest"])
def test_other_damage_is_named(tmp_path, change):
    save(tmp_path, trained(), step=1)
    newest = save(tmp_path, trained(), step=2)
    chosen = next(p for p in sorted(newest.rglob("*")) if p.is_file() and p.parent != newest and p.stat().st_size)
    if change == "missing":
        chosen.unlink()
    elif change == "added":
        chosen.with_name("more").write_text("x")
        chosen = chosen.with_name("more")
    elif change == "cut":
        chosen.write_bytes(chosen.read_bytes()[:-1])
    else:
        chosen = newest / "manifest.json"
        chosen.unlink()
    found = restore(tmp_path, trained())
    assert found.step == 1
    assert "00000002 is damaged" in found.skipped[0]
    assert chosen.name in found.skipped[0]


def test_a_failure_while_saving_leaves_what_was_there(tmp_path, monkeypatch):
    save(tmp_path, trained(), step=1)
    monkeypatch.setattr(checkpoint_folder, "_sync", lambda path: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(CheckpointError, match=r"step 2 could not be saved in .*No space left on device; .*step 1 is whole"):
        save(tmp_path, trained(), step=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000001"]
    assert restore(tmp_path, trained()).step == 1


def test_a_place_that_cannot_be_written_to_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match=r"could not be saved in .*; there is no earlier one\. Free space"):
        save(tmp_path / "file", trained(), step=1)


@pytest.mark.in_turn
def test_a_full_disk_is_one_sentence_and_leaves_the_checkpoint_before(tmp_path):
    """A full disk, as a process sees it: no file may grow past 64 kB."""
    program = f"""
import resource
import jax
from nnjax.train import CheckpointError, save
save({str(tmp_path)!r}, {{"w": jax.random.normal(jax.random.key(0), (10,))}}, step=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    save({str(tmp_path)!r}, {{"w": jax.random.normal(jax.random.key(0), (300, 300))}}, step=2)
except CheckpointError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert "checkpoint of step 2 could not be saved in" in done.stdout
    assert "the one of step 1 is whole" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["00000001"]
    checkpoint_folder.verify(tmp_path / "00000001")


def test_a_thread_that_still_writes_when_a_save_fails_is_waited_for_and_prints_nothing(tmp_path, monkeypatch, capfd):
    """Like orbax's threads: the error of one is raised while another still works, and fails once the folder is removed."""
    found = []

    def run(self):
        time.sleep(0.3)
        found.append((self.path / "written before").exists())
        raise FileNotFoundError(2, "No such file or directory")

    Writer = type("Writer", (threading.Thread,), {"__module__": "orbax.checkpoint.future", "run": run})

    def fail(path, arrays):
        path.mkdir()
        (path / "written before").touch()
        writer = Writer()
        writer.path = path
        writer.start()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_orbax", lambda: SimpleNamespace(save=fail))
    with pytest.raises(CheckpointError, match="No space left on device"):
        save(tmp_path, trained(), step=1)
    assert found == [True]
    assert capfd.readouterr().err == ""
    assert not any(type(thread) is Writer for thread in threading.enumerate())


def test_the_death_of_another_process_is_not_reported_as_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Timeout waiting at barrier"), checkpoint._told(tmp_path, 1):
        raise ValueError("Timeout waiting at barrier 'state'. Tasks: 1\nand more")
    with pytest.raises(CheckpointError, match="could not be saved"), checkpoint._told(tmp_path, 1):
        raise ValueError("No space left on device")


@pytest.mark.in_turn
def test_a_process_killed_while_it_saves_leaves_a_valid_checkpoint(tmp_path):
    """It saves as fast as it can a state that contains its step."""
    program = f"""
import jax.numpy as jnp
from nnjax.train import save
step = 0
while True:
    step += 1
    save({str(tmp_path)!r}, {{"step": jnp.int32(step), "w": jnp.full((300, 300), float(step))}}, step=step, keep=2)
    print(step, flush=True)
"""
    rng = np.random.default_rng(0)
    like = {"step": jnp.int32(0), "w": jnp.zeros((300, 300))}
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            done = [int(process.stdout.readline())]
            time.sleep(float(rng.uniform(0, 0.3)))
            process.send_signal(signal.SIGKILL)
            done += [int(line) for line in process.stdout.read().split()]
        found = restore(tmp_path, like)
        assert found.skipped == ()
        assert found.step >= done[-1]  # if killed between the rename and the print, it may be one step further
        assert int(found.state["step"]) == found.step
        np.testing.assert_array_equal(found.state["w"], float(found.step))
    save(tmp_path, like, step=10_000)
    assert not [p for p in tmp_path.iterdir() if not p.name.isdigit()]


def test_the_manifest_says_what_is_inside(tmp_path):
    manifest = json.loads((save(tmp_path, trained(), step=3) / "manifest.json").read_text())
    assert {"name": "params[0].w", "shape": [4, 5], "dtype": "float32"} in manifest["leaves"]
    assert manifest["step"] == 3
    assert all(len(digest) == 64 and Path(name).parts[0] == "state" for name, digest in manifest["files"].items())
