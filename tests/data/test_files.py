import os
import stat

import pytest

from nnjax.data.files import expect_path, new_file, new_folder, replacing, writing


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002, 0o000])
def test_new_files_have_the_mode_of_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        file, folder = new_file(tmp_path, ".a-"), new_folder(tmp_path, ".a-")
        with replacing(tmp_path / "b") as draft:
            draft.write_text("b")
            draft.chmod(0o600)
        (tmp_path / "plain").write_text("")
    finally:
        os.umask(before)
    assert [mode(p) for p in (file, folder, tmp_path / "b")] == [0o666 & ~umask, 0o777 & ~umask, mode(tmp_path / "plain")]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a"
    path.write_text("before")

    def halfway():
        with replacing(path) as draft:
            draft.write_text("half")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        halfway()
    assert path.read_text() == "before"
    with replacing(path) as draft:
        draft.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    with pytest.raises(OSError, match="a folder"):
        replacing(tmp_path / "a folder" / "a").__enter__()


def test_an_invalid_path_is_reported():
    assert expect_path("save", "a/b").name == "b"
    for wrong in (3, None, b"bytes", ["a"]):
        with pytest.raises(TypeError, match=r"save: a path must be a str or a pathlib\.Path, got .*; pass e\.g\."):
            expect_path("save", wrong)


def test_why_a_file_could_not_be_written_is_one_sentence(tmp_path):
    path = tmp_path / "a"
    with (
        pytest.raises(OSError, match=rf"^{path} could not be written: No space left on device; free space, or choose"),
        writing(path),
    ):
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())
    missing = tmp_path / "none" / "a"
    with pytest.raises(OSError, match=rf"^{missing} could not be written: No such file or directory; free"), writing(missing):
        pass
    with writing(path) as draft:
        draft.write_text("whole")
    assert path.read_text() == "whole"
