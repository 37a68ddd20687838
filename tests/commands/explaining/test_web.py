import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from nnjax.commands.explaining import web
from nnjax.commands.explaining.numbers import network, numbers
from nnjax.commands.explaining.web import PAGE, address, find_page, open_page

REPOSITORY = Path(__file__).parents[3]


def test_a_checkout_finds_the_page_among_the_notebooks_and_a_wheel_in_the_package(tmp_path):
    assert find_page() == REPOSITORY / "notebooks" / PAGE
    package, notebooks = tmp_path / "nnjax", tmp_path / "notebooks"
    for folder in (notebooks, package):
        folder.mkdir()
        (folder / PAGE).write_text("")
        assert find_page((package, notebooks)) == folder / PAGE


def test_a_page_that_is_missing_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"--web.*{PAGE}.*reinstall"):
        find_page((tmp_path,))


@pytest.mark.in_turn
def test_the_address_holds_the_network():
    n = numbers(network((3, 2, 4)))
    found = urlsplit(address(n))
    assert (found.scheme, Path(found.path).name) == ("file", PAGE)
    shown = json.loads(unquote(found.fragment))
    for name, values in (("w", n.w), ("b", n.b), ("u", n.z), ("y", n.y)):
        np.testing.assert_array_equal(shown[name], values)
    assert not urlsplit(address()).fragment


def test_without_a_browser_the_path_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(web.webbrowser, "open", lambda address: False)
    assert open_page() == 0
    out = capsys.readouterr().out
    assert "No browser was found" in out
    path = re.search(r"\S+\.html", out)
    assert path
    assert Path(path[0]).is_file()


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_wheel_holds_the_page_where_it_is_looked_for(tmp_path):
    pytest.importorskip("pip")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(REPOSITORY)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    packed = tmp_path / "installed" / "nnjax" / PAGE
    assert packed.read_bytes() == (REPOSITORY / "notebooks" / PAGE).read_bytes()
    code = "from nnjax.commands.explaining.web import find_page; print(find_page())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "installed", capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).samefile(packed)
