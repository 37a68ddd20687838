import io
import struct
import zipfile

import numpy as np
import pytest

from nnjax.cli import main
from nnjax.data import npz
from nnjax.data.npz import read_npz
from nnjax.train import DataError, load_files

X, Y = np.random.default_rng(0).random((64, 4)), np.arange(64) % 2


def member(array) -> bytes:
    raw = io.BytesIO()
    np.lib.format.write_array(raw, array)
    return raw.getvalue()


def claiming(shape, dtype="<f8", data=b"") -> bytes:
    """An array that claims this size."""
    raw = io.BytesIO()
    np.lib.format.write_array_header_1_0(raw, {"shape": shape, "fortran_order": False, "descr": dtype})
    return raw.getvalue() + data


def write(path, **members) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, raw in members.items():
            file.writestr(name.replace("__", "."), raw)


def flipped(path, bit) -> None:
    raw = bytearray(path.read_bytes())
    raw[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(raw))


def encrypted(path) -> None:
    write(path, x__npy=member(X), y__npy=member(Y))
    raw = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := raw.find(mark, start + 1)) >= 0:
            raw[start + at] |= 1
    path.write_bytes(bytes(raw))


def unknown_compression(path) -> None:
    write(path, x__npy=member(X), y__npy=member(Y))
    raw = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        start = raw.find(mark)
        raw[start + at : start + at + 2] = struct.pack("<H", 77)
    path.write_bytes(bytes(raw))


def in_the_middle(path) -> None:
    np.savez_compressed(path, x=X, y=Y)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3] ^= 4
    path.write_bytes(bytes(raw))


def one_array(path) -> None:
    with path.open("wb") as file:
        np.save(file, X)


DAMAGED = {
    "empty": (lambda path: path.write_bytes(b""), r"it is empty"),
    "words": (lambda path: path.write_text("x, y\n1, 2\n" * 50), r"File is not a zip file"),
    "one array": (one_array, r"it is a single array, saved with np\.save; save it with np\.savez"),
    "a flipped bit": (in_the_middle, r"save it with np\.savez"),
    "encrypted": (encrypted, r"x is encrypted; save it with np\.savez, without a password"),
    "a compression that nobody knows": (unknown_compression, r"compression"),
    "no array": (lambda path: write(path, x__npy=b"hello" * 9, y__npy=member(Y)), r"x is not an array: .*magic"),
    "no array, by name": (lambda path: write(path, x=b"hello", y__npy=member(Y)), r"x is not an array: its name lacks \.npy"),
    "an empty member": (lambda path: write(path, x__npy=b"", y__npy=member(Y)), r"x is not an array"),
    "a header cut short": (lambda path: write(path, x__npy=member(X)[:40], y__npy=member(Y)), r"x is not an array"),
    "an unknown version": (
        lambda path: write(path, x__npy=b"\x93NUMPY\x09" + member(X)[7:], y__npy=member(Y)),
        r"x is not an array",
    ),
    "objects": (
        lambda path: np.savez(path, x=np.array([{}, 1], object), y=Y),
        r"x holds Python objects, .* unpickled",
    ),
    "objects in a field": (
        lambda path: np.savez(path, x=np.zeros(3, [("a", "f4"), ("b", object)]), y=Y),
        r"x holds Python objects",
    ),
    "larger than memory, it says": (
        lambda path: write(path, x__npy=claiming((1 << 40, 1 << 10)), y__npy=member(Y)),
        r"x should be float64 \(1099511627776, 1024\), which takes 8.39e\+06 GiB, but has 0 bytes; replace",
    ),
    "more than 64 bits count": (
        lambda path: write(path, x__npy=claiming((1 << 62, 1 << 62)), y__npy=member(Y)),
        r"x should be float64 .*replace the file",
    ),
    "a negative length": (lambda path: write(path, x__npy=claiming((-1, 4), data=bytes(32)), y__npy=member(Y)), r"x should"),
    "fewer numbers than it says": (
        lambda path: write(path, x__npy=member(X)[:-8], y__npy=member(Y)),
        r"x should be float64 \(64, 4\), which takes 2,048 bytes, but has 2,040 bytes",
    ),
    "more numbers than it says": (lambda path: write(path, x__npy=member(X) + bytes(8), y__npy=member(Y)), r"has 2,056 bytes"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_file_that_is_not_a_valid_npz_is_a_sentence(tmp_path, kind):
    path = tmp_path / "mine.npz"
    make, message = DAMAGED[kind]
    make(path)
    with pytest.raises(DataError, match=rf"mine\.npz is not a readable \.npz file of plain arrays: .*{message}"):
        load_files(path)


def test_a_folder_and_a_missing_file_are_sentences(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(DataError, match=r"folder\.npz is not a readable \.npz file of plain arrays: .*directory"):
        load_files(tmp_path / "folder.npz")
    with pytest.raises(DataError, match=r"does not exist; check the path"):
        load_files(tmp_path / "none.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_flipped_bit_passes_unseen(tmp_path, save):
    path = tmp_path / "mine.npz"
    save(path, x=X[:8], y=Y[:8])
    sound = path.read_bytes()
    right = load_files(path).train
    refused = 0
    for bit in np.random.default_rng(1).choice(8 * len(sound), 300, replace=False):
        flipped(path, int(bit))
        try:
            found = load_files(path).train
        except DataError:
            refused += 1
        else:  # a bit that does not affect the arrays: a date, an attribute
            np.testing.assert_array_equal(found.x, right.x)
            np.testing.assert_array_equal(found.y, right.y)
        path.write_bytes(sound)
    assert refused > 100


def test_an_array_larger_than_the_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    write(tmp_path / "mine.npz", x__npy=member(np.zeros((4096, 1024))), y__npy=member(Y))
    monkeypatch.setattr(npz, "memory", lambda: 1 << 20)
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    with pytest.raises(DataError, match=r"x takes 0\.0313 GiB, .* 0\.000977 GiB of memory"):
        load_files(tmp_path / "mine.npz")


def test_memory_that_runs_out_is_a_sentence(tmp_path, monkeypatch):
    np.savez(tmp_path / "mine.npz", x=X, y=Y)

    def out(*_):
        raise MemoryError

    monkeypatch.setattr(np, "frombuffer", out)
    with pytest.raises(DataError, match=r"it is larger than the memory"):
        load_files(tmp_path / "mine.npz")


def test_arrays_come_as_numpy_reads_them(tmp_path):
    arrays = {
        "x": np.asfortranarray(X),
        "y": np.float32(3),
        "a": X.astype(">f4")[::-1],
        "b": np.zeros((0, 3)),
        "c": np.array(["é"]),
    }
    np.savez_compressed(tmp_path / "mine.npz", **arrays, d=np.array([{}], object))
    found, held = read_npz(tmp_path / "mine.npz", [*arrays, "e"])
    assert sorted(held) == ["a", "b", "c", "d", "x", "y"]
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert set(found) == set(arrays)


def test_zip_checks_its_sums(tmp_path):
    """The basis of the test of flipped bits, for an array that is stored uncompressed."""
    np.savez(tmp_path / "mine.npz", x=X, y=Y)
    raw = (tmp_path / "mine.npz").read_bytes()
    at = raw.find(X.tobytes())
    (tmp_path / "mine.npz").write_bytes(raw[: at + 9] + bytes([raw[at + 9] ^ 1]) + raw[at + 10 :])
    with pytest.raises(DataError, match=r"Bad CRC-32 for file 'x\.npy'"):
        load_files(tmp_path / "mine.npz")


@pytest.mark.parametrize("kind", DAMAGED)
def test_the_command_ends_with_2_and_a_sentence(tmp_path, kind, capsys):
    DAMAGED[kind][0](tmp_path / "mine.npz")
    with pytest.raises(SystemExit) as ended:
        main(["train", "--data", str(tmp_path / "mine.npz")])
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert "mine.npz is not a readable .npz" in printed
