import hashlib
import json
import os
from pathlib import Path

import jax.numpy as jnp
import pytest

from nnjax.train import CheckpointError, Checkpoints, checkpoint_folder, restore, save
from nnjax.train.run import begin


class Killed(BaseException):
    """Simulates a SIGKILL: nothing that runs after it may clean up."""


@pytest.mark.parametrize("step", [2, 3], ids=["one of the same step", "one too many"])
def test_killed_while_it_removes_an_old_checkpoint_it_leaves_only_whole_ones(tmp_path, monkeypatch, step):
    """Saving step 2 again replaces the one before; saving step 3 drops that of step 1."""
    like = {"w": jnp.zeros((3, 4))}
    for earlier in (1, 2):
        save(tmp_path, {"w": jnp.full((3, 4), float(earlier))}, step=earlier)

    def half(path, ignore_errors=False):
        for digest in Path(path).rglob("manifest.sha256"):
            digest.unlink()
        raise Killed

    monkeypatch.setattr(checkpoint_folder.shutil, "rmtree", half)
    with pytest.raises(Killed):
        save(tmp_path, {"w": jnp.full((3, 4), 9.0)}, step=step, keep=2)
    monkeypatch.undo()
    for there in checkpoint_folder.steps(tmp_path):
        checkpoint_folder.verify(tmp_path / f"{there:08d}")
    found = restore(tmp_path, like)
    assert (found.step, float(found.state["w"][0, 0]), found.skipped) == (step, 9.0, ())
    save(tmp_path, like, step=4)
    assert not [p for p in tmp_path.iterdir() if not p.name.isdigit()]


def test_killed_between_the_two_renames_it_leaves_the_checkpoint_to_be_replaced(tmp_path, monkeypatch):
    like = {"w": jnp.zeros((3, 4))}
    save(tmp_path, {"w": jnp.full((3, 4), 2.0)}, step=2)
    rename = checkpoint_folder.os.rename

    def killed_at_the_second(source, target):
        if Path(source).name.startswith(checkpoint_folder.UNFINISHED):
            raise Killed
        rename(source, target)

    monkeypatch.setattr(checkpoint_folder.os, "rename", killed_at_the_second)
    with pytest.raises(Killed):
        save(tmp_path, {"w": jnp.full((3, 4), 9.0)}, step=2)
    monkeypatch.undo()
    found = restore(tmp_path, like)
    assert (found.step, float(found.state["w"][0, 0]), found.skipped) == (2, 2.0, ())


LIKE = {"w": jnp.zeros((3, 4))}


def sealed(path, text):
    """A folder with a manifest of this text, and the digest that fits it."""
    path.mkdir()
    (path / "manifest.json").write_text(text)
    (path / "manifest.sha256").write_text(hashlib.sha256(text.encode()).hexdigest() + "\n")


def changed(path, **entries):
    """A whole checkpoint whose manifest has other entries, and the digest that fits it."""
    save(path.parent, LIKE, step=int(path.name))
    text = json.dumps({**json.loads((path / "manifest.json").read_text()), **entries})
    (path / "manifest.json").write_text(text)
    (path / "manifest.sha256").write_text(hashlib.sha256(text.encode()).hexdigest() + "\n")


def cut_short(path):
    save(path.parent, LIKE, step=int(path.name))
    whole = (path / "manifest.json").read_bytes()
    (path / "manifest.json").write_bytes(whole[: len(whole) // 2])


def without_state(path):
    save(path.parent, LIKE, step=int(path.name))
    next(p for p in sorted((path / "state").rglob("*")) if p.is_file()).unlink()


STRANGE = {
    "a file": (lambda path: path.write_text("not a folder"), "is not a checkpoint: it is not a folder"),
    "an empty file": (lambda path: path.touch(), "is not a checkpoint: it is not a folder"),
    "a link to itself": (lambda path: path.symlink_to(path), "is not a checkpoint: it is not a folder"),
    "a link to nowhere": (lambda path: path.symlink_to(path.parent / "nowhere"), "is not a checkpoint: it is not a folder"),
    "a pipe": (os.mkfifo, "is not a checkpoint: it is not a folder"),
    "an empty folder": (Path.mkdir, "is damaged: manifest.json is missing"),
    "a manifest that is none": (lambda path: (path / "manifest.json").mkdir(parents=True), "cannot be read: Is a directory"),
    "a manifest cut short": (cut_short, "is damaged: manifest.json has changed"),
    "no JSON": (lambda path: sealed(path, "{"), "is not a checkpoint: manifest.json is not JSON"),
    "no text": (lambda path: sealed(path, "[" * 100_000), "is not a checkpoint: manifest.json is not JSON"),
    "a list": (lambda path: sealed(path, "[1, 2]"), "is not a checkpoint: manifest.json has other content"),
    "null": (lambda path: sealed(path, "null"), "is not a checkpoint: manifest.json has other content"),
    "of something else": (lambda path: sealed(path, '{"name": "x"}'), "is not a checkpoint: manifest.json has other content"),
    "a list for the metrics": (lambda path: changed(path, metrics=[1]), "is not a checkpoint: manifest.json lacks metrics"),
    "no leaves": (lambda path: changed(path, leaves=None), "is not a checkpoint: manifest.json lacks leaves"),
    "a newer format": (lambda path: changed(path, format=99), "was saved by another version, in format 99; this one reads"),
    "a format in words": (lambda path: changed(path, format="new"), "was saved by another version, in format new; this one"),
    "a state that lacks a file": (without_state, "is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.repeats
def test_invalid_checkpoints_are_skipped_with_a_reason(tmp_path, name):
    make, word = STRANGE[name]
    save(tmp_path, {"w": jnp.full((3, 4), 5.0)}, step=1)
    make(tmp_path / "00099999")
    found = restore(tmp_path, LIKE)
    assert (found.step, float(found.state["w"][0, 0])) == (1, 5.0)
    assert len(found.skipped) == 1
    assert "00099999 " in found.skipped[0]
    assert word in found.skipped[0]
    for step in (2, 3, 4):
        save(tmp_path, LIKE, step=step, keep=1)  # it does not count and is not removed
    assert os.path.lexists(tmp_path / "00099999")
    assert set(checkpoint_folder.known(tmp_path)) - {99999} == {4}


@pytest.mark.parametrize("name", [name for name in STRANGE if name not in ("a state that lacks a file",)])
@pytest.mark.repeats
def test_what_has_the_name_of_a_checkpoint_is_moved_aside(tmp_path, name):
    STRANGE[name][0](tmp_path / "00000002")
    for value in (7.0, 8.0):
        save(tmp_path, {"w": jnp.full((3, 4), value)}, step=2)
        found = restore(tmp_path, LIKE)
        assert (found.step, float(found.state["w"][0, 0]), found.skipped) == (2, value, ())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000002", "00000002.no-checkpoint"]


@pytest.mark.parametrize("name", ["is_dir", "read_bytes", "open"])
def test_unreadable_checkpoints_are_skipped(tmp_path, monkeypatch, name):
    """Root may read everything, so the refusal is simulated."""
    for step in (1, 2):
        save(tmp_path, LIKE, step=step)
    before = getattr(Path, name)

    def refused(self, *args, **how):
        if "00000002" in self.parts:
            raise PermissionError(13, "Permission denied", str(self))
        return before(self, *args, **how)

    monkeypatch.setattr(Path, name, refused)
    found = restore(tmp_path, LIKE)
    assert found.step == 1
    assert "00000002 cannot be read: " in found.skipped[0]
    assert "Permission denied" in found.skipped[0]


def test_other_names_are_not_checkpoints(tmp_path):
    save(tmp_path, LIKE, step=1)
    for name in ("5", "0000005", "\u00b2" * 8, "\u0665" * 8, "00000005 ", "00000005.tmp", "-0000005", "000000005", "notes.txt"):
        (tmp_path / name).mkdir()
    assert checkpoint_folder.steps(tmp_path) == [1]
    save(tmp_path, LIKE, step=123_456_789)
    assert checkpoint_folder.steps(tmp_path) == [1, 123_456_789]
    assert restore(tmp_path, LIKE).skipped == ()


def test_a_folder_that_may_not_be_read_is_one_sentence(tmp_path, monkeypatch):
    def refused(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(CheckpointError, match=r"cannot be read: Permission denied; choose another folder"):
        checkpoint_folder.steps(tmp_path)


def test_without_a_valid_checkpoint_a_resumed_run_starts_from_the_beginning_and_removes_nothing(tmp_path):
    (tmp_path / "00000007").write_text("mine")
    changed(tmp_path / "00000009", format=99)
    notes = []
    state, done = begin(Checkpoints(tmp_path, resume=True, on_note=notes.append), LIKE)
    assert state is LIKE
    assert done.history == ()
    assert [note.startswith("skipped: ") for note in notes] == [True, True, False]
    assert notes[2].endswith("starting from the beginning; the files there stay")
    with pytest.raises(
        CheckpointError, match=r"no valid checkpoint in .*in format 99.*it is not a folder\. Start again in another"
    ):
        restore(tmp_path, LIKE)
    for step in (1, 7, 9):
        save(tmp_path, LIKE, step=step, keep=1)
    assert (tmp_path / "00000007.no-checkpoint").read_text() == "mine"
    assert json.loads((tmp_path / "00000009.no-checkpoint" / "manifest.json").read_text())["format"] == 99
