import gzip
import hashlib
import http.server
import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest

from nnjax.data import catalogue as data
from nnjax.data import download
from nnjax.data.download import Source
from nnjax.train import DataError, Dataset, Split, load

SHARED = Path(__file__).parents[3] / "shared" / "data"


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """Four small IDX files in the form of MNIST, and a cache folder for the test."""
    rng, digests, files = np.random.default_rng(0), {}, {}
    for name in data.IMAGES:
        n = 60_000 if "train" in name else 30
        shape = (n, 2, 2) if "images" in name else (n,)
        files[name] = idx(rng.integers(0, 10, shape, np.uint8))
        digests[name] = hashlib.sha256(files[name]).hexdigest()
    monkeypatch.setitem(data.SOURCES, "mnist", Source("mnist", (), digests))
    monkeypatch.setattr(download, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("NNJAX_DATA", raising=False)
    folder = tmp_path / "given"
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content, 1))
    return folder


def test_digits_are_the_real_1797_and_split_without_overlap():
    digits = load("digits")
    assert [len(s.y) for s in (digits.train, digits.validation, digits.test)] == [1257, 180, 360]
    x = np.concatenate([digits.train.x, digits.validation.x, digits.test.x])
    assert x.dtype == np.float32
    assert x.min() == 0
    assert x.max() == 1
    y = np.concatenate([digits.train.y, digits.validation.y, digits.test.y])
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    sums = (x * 16).sum(1)
    assert round(float(sums.sum())) == 561718


def test_a_name_may_be_a_path_and_images_know_their_shape(tmp_path):
    digits = load(Path("digits"))
    np.testing.assert_array_equal(digits.train.x, load("digits").train.x)
    assert digits.shape == (8, 8)
    np.savez(tmp_path / "mine.NPZ", x=np.ones((20, 3)), y=np.arange(20) % 2)
    (tmp_path / "mine.NPZ.npz").rename(tmp_path / "mine.NPZ")
    assert load(tmp_path / "mine.NPZ").train.x.shape == load(str(tmp_path / "mine.NPZ")).train.x.shape == (16, 3)
    with pytest.raises(ValueError, match=r"unknown data set 'digit'"):
        load(Path("digit"))


@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="the real MNIST files are not beside this checkout")
def test_real_mnist_loads_and_has_its_known_counts(monkeypatch):
    monkeypatch.setenv("NNJAX_DATA", str(SHARED))
    mnist = load("mnist")
    assert [len(s.y) for s in (mnist.train, mnist.validation, mnist.test)] == [50_000, 10_000, 10_000]
    assert mnist.train.x.shape == (50_000, 784)
    assert mnist.test.y[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(mnist.test.y)[0] == 980


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_found_where_nnjax_data_points(small_mnist, monkeypatch, nested, packed):
    folder = small_mnist
    if not packed:
        for path in small_mnist.glob("*.gz"):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
    if nested:
        (folder / "mnist").mkdir()
        for path in [p for p in folder.iterdir() if p.is_file()]:
            path.rename(folder / "mnist" / path.name)
    monkeypatch.setenv("NNJAX_DATA", str(folder))
    found = load("mnist")
    assert found.train.x.shape == (50_000, 4)
    assert found.validation.x.shape == (10_000, 4)


def _damage(path: Path, how: str) -> None:
    raw = path.read_bytes()
    if how == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    elif how == "flipped":
        content = bytearray(gzip.decompress(raw))
        content[len(content) // 2] ^= 1
        path.write_bytes(gzip.compress(bytes(content)))
    elif how == "flipped in the archive":
        path.write_bytes(raw[: len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 16]) + raw[len(raw) // 2 + 1 :])
    else:
        path.write_bytes(b"<html>not found</html>")


@pytest.mark.parametrize("how", ["truncated", "flipped", "flipped in the archive", "no gzip"])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_file_is_named_with_the_remedy(small_mnist, monkeypatch, how, name):
    monkeypatch.setenv("NNJAX_DATA", str(small_mnist))
    _damage(small_mnist / f"{name}.gz", how)
    with pytest.raises(DataError, match=rf"{name}.gz is damaged: expected .*; replace it .* or unset NNJAX_DATA"):
        load("mnist")


@pytest.fixture
def server(small_mnist):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(small_mnist))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}/"
        httpd.shutdown()


def mirrors(monkeypatch, *urls):
    monkeypatch.setitem(data.SOURCES, "mnist", data.SOURCES["mnist"]._replace(mirrors=urls))


def left_over(cache: Path) -> list[str]:
    return sorted(p.name for p in cache.rglob("*") if p.is_file())


def test_a_download_is_verified_and_kept(small_mnist, server, monkeypatch, tmp_path):
    mirrors(monkeypatch, "http://127.0.0.1:9/", server)
    load("mnist")
    assert left_over(tmp_path / "cache") == sorted(f"{name}.gz" for name in data.IMAGES)
    (tmp_path / "plain").touch()
    assert {p.stat().st_mode for p in (tmp_path / "cache").rglob("*.gz")} == {(tmp_path / "plain").stat().st_mode}
    mirrors(monkeypatch)
    load("mnist")


@pytest.mark.parametrize("how", ["truncated", "flipped", "no gzip", "missing"])
def test_a_bad_download_leaves_nothing_behind(small_mnist, server, monkeypatch, tmp_path, how):
    mirrors(monkeypatch, server)
    name = "train-images-idx3-ubyte"
    if how == "missing":
        (small_mnist / f"{name}.gz").unlink()
    else:
        _damage(small_mnist / f"{name}.gz", how)
    with pytest.raises(DataError, match=r"could not be downloaded") as caught:
        load("mnist")
    assert ("404" if how == "missing" else "damaged") in str(caught.value)
    assert "set $NNJAX_DATA to that folder" in str(caught.value)
    assert left_over(tmp_path / "cache") == []


def test_no_network_and_no_data_is_one_clear_error(small_mnist, monkeypatch, tmp_path):
    mirrors(monkeypatch, "http://127.0.0.1:9/")
    monkeypatch.setenv("NNJAX_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"4 files were not found, and could not be downloaded") as caught:
        load("mnist")
    said = str(caught.value)
    assert all(f"  {name}.gz\n" in said for name in data.IMAGES)
    assert f"  {tmp_path / 'nowhere'}\n" in said
    assert said.count("http://127.0.0.1:9/") == said.count("Connection refused") == 1
    assert "Max retries" not in said
    assert all(len(line) <= 80 or str(tmp_path) in line for line in said.splitlines())
    assert left_over(tmp_path / "cache") == []


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(
        ValueError,
        match=r"unknown data set 'mnits': known are digits, fashion_mnist, kmnist, mnist, .*; did you mean 'mnist'\?",
    ):
        load("mnits")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"expected an IDX file of unsigned bytes, got a header b''"),
        (b"\x80\x04pickle", r"expected an IDX file"),
        (
            idx(np.zeros((3, 2), np.uint8))[:-1],
            r"expected 6 bytes of data for shape \(3, 2\), got 5; the file is truncated",
        ),
        (idx(np.zeros((3, 2), np.uint8))[:6], r"expected an IDX file"),
    ],
)
def test_a_file_that_is_not_an_idx_file_is_refused(content, message):
    with pytest.raises(DataError, match=message):
        data.parse_idx("labels", content)


def small(**changes) -> Dataset:
    rng = np.random.default_rng(0)
    part = Split(rng.random((6, 3)).astype(np.float32), np.arange(6, dtype=np.int32) % 2)
    return Dataset("mine", part, part, part, 2)._replace(**changes)


X, Y = small().train


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train": Split(np.where(X == X[4, 1], np.nan, X), Y)},
            r"'mine', train: every number must be finite.*first at row 4",
        ),
        (
            {"test": Split(np.where(X == X[0, 0], np.inf, X), Y)},
            r"'mine', test: every number must be finite.*in 1 examples",
        ),
        ({"train": Split(X, Y[:5])}, r"expected one label for each example, got 6 examples and 5 labels"),
        ({"train": Split(X, Y + 1)}, r"labels must be integers in 0 \.\.\. 1, got int32 \(6,\) from 1 to 2"),
        ({"train": Split(X, Y.astype(np.float32))}, r"labels must be integers"),
        ({"train": Split((9 * X).astype(np.uint8), Y)}, r"x must be floating point, got uint8 \(6, 3\)"),
        ({"train": Split(X[:0], Y[:0])}, r"the training split is empty"),
    ],
)
def test_unusable_data_is_refused(changes, message):
    with pytest.raises(DataError, match=message):
        data.validated(small(**changes))


def test_nothing_is_ever_unpickled(tmp_path, monkeypatch):
    np.savez(tmp_path / "digits.npz", images=np.array([object()]), labels=np.zeros(1))
    monkeypatch.setattr(data, "__file__", str(tmp_path / "data.py"))
    with pytest.raises(ValueError, match=r"images holds Python objects.* unpickled.*; reinstall nnjax"):
        load("digits")
    assert "allow_pickle=True" not in Path(data.__spec__.origin or "").read_text()
    assert os.path.exists(tmp_path / "digits.npz")


def test_the_scale_of_pixels_is_the_divisor_of_load(tmp_path):
    assert [data.scale_of(name) for name in ("digits", "mnist", tmp_path, tmp_path / "a.npz")] == [16, 255, 255, 1]
