from pathlib import Path

import jax.numpy as jnp
import pytest

from nnjax.train import checkpoint_folder, restore, save


class Killed(BaseException):
    """Stands for a SIGKILL: nothing that runs after it may clean up."""


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


def test_killed_between_the_two_renames_it_leaves_the_one_that_it_was_to_replace(tmp_path, monkeypatch):
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
