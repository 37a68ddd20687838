"""Downloads from a small server on this machine: whole, cut, wrong, missing, stalled, and two processes at once."""

import gzip
import hashlib
import http.server
import subprocess
import sys
import threading
import time

import pytest

from nnjax.data import download
from nnjax.data.download import Source, content
from nnjax.train import DataError

BODY = b"characters " * 500


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1]
        if name == "missing.txt":
            self.send_error(404)
            return
        packed = gzip.compress(BODY, mtime=0) if name.endswith(".gz") else BODY
        body = {"wrong.txt": BODY[::-1]}.get(name, packed)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if name == "stalled.txt":
            self.wfile.write(body[:100])
            self.wfile.flush()
            time.sleep(5)
        elif name == "cut.txt":
            self.wfile.write(body[:100])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("NNJAX_DATA", raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}/"
        httpd.shutdown()


def source(server, name, **changes):
    return Source("set", (server,), {name: hashlib.sha256(BODY).hexdigest()}, suffix="")._replace(**changes)


def left(tmp_path):
    return [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_a_good_file_is_kept_and_found_again_and_may_have_another_name_there(server, tmp_path):
    assert content(source(server, "good.txt"), "good.txt") == BODY
    assert left(tmp_path) == ["good.txt"]
    assert content(source("http://127.0.0.1:9/", "good.txt"), "good.txt") == BODY
    assert content(source(server, "mine.txt", remote={"mine.txt": "good.txt"}), "mine.txt") == BODY


def test_a_digest_may_be_that_of_the_packed_file(server, tmp_path):
    packed = hashlib.sha256(gzip.compress(BODY, mtime=0)).hexdigest()
    assert content(Source("set", (server,), {"good": packed}, packed=True), "good") == BODY
    with pytest.raises(DataError, match="is damaged"):
        content(Source("other", (server,), {"good": "0" * 64}, packed=True), "good")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.txt", "404"),
        ("wrong.txt", r"is damaged: expected content with\s+SHA-256"),
        ("cut.txt", "the connection ended before the file did|damaged"),
        ("stalled.txt", "timed out"),
    ],
)
def test_a_bad_download_is_named_and_leaves_nothing(server, tmp_path, monkeypatch, name, message):
    monkeypatch.setattr(download, "DOWNLOAD_TIMEOUT", 0.5)
    start = time.perf_counter()
    with pytest.raises(DataError, match=message) as caught:
        content(source(server, name), name)
    assert time.perf_counter() - start < 4
    assert f"{server}{name}" in str(caught.value)
    assert left(tmp_path) == []


def test_only_the_missing_ones_of_several_files_are_named(server, tmp_path):
    digest = hashlib.sha256(BODY).hexdigest()
    both = source(server, "good.txt", files={"good.txt": digest, "missing.txt": digest, "cut.txt": digest})
    with pytest.raises(DataError, match=r"2 files were not found") as caught:
        download.contents(both, ["good.txt", "missing.txt", "cut.txt"])
    assert "  missing.txt\n  cut.txt\n" in str(caught.value)
    assert "  good.txt" not in str(caught.value)
    assert f"{server}missing.txt\n    404 Not Found" in str(caught.value)
    assert left(tmp_path) == ["good.txt"]


def test_the_next_mirror_is_tried(server, monkeypatch):
    monkeypatch.setattr(download, "DOWNLOAD_TIMEOUT", 0.5)
    both = source(server, "good.txt", mirrors=("http://127.0.0.1:9/", server))
    assert content(both, "good.txt") == BODY


@pytest.mark.in_turn
def test_two_processes_at_once_both_get_it(server, tmp_path):
    program = f"""
from pathlib import Path
from nnjax.data import download
download.cache_folder = lambda: Path({str(tmp_path / "cache")!r})
source = download.Source("set", ({server!r},), {{"good.txt": {hashlib.sha256(BODY).hexdigest()!r}}}, suffix="")
assert len(download.content(source, "good.txt")) == {len(BODY)}
"""
    both = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    assert [p.wait() for p in both] == [0, 0]
    assert left(tmp_path) == ["good.txt"]
