"""The site: every public name is in it, with an example that runs; no warning when it is built, and no dead link."""

import doctest
import importlib.util
import inspect
import io
import os
import re
import subprocess
import sys
import time
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import jax
import jax.numpy as jnp
import pytest

import nnjax

ROOT = Path(__file__).parents[1]
MODULES = (
    "nnjax", "nnjax.ops", "nnjax.train", "nnjax.data", "nnjax.models", "nnjax.distributed", "nnjax.losses", "nnjax.feedback",
    "nnjax.nielsen", "nnjax.draw", "nnjax.exercises",
)  # fmt: skip
SECONDS = 180


def public(name: str) -> dict[str, object]:
    """The public names of a module: those of its `__all__`, or of a package all that it imports by name."""
    module = importlib.import_module(name)
    names = getattr(module, "__all__", None) or [n for n, v in vars(module).items() if n[0] != "_" and not inspect.ismodule(v)]
    return {f"{name}.{n}": getattr(module, n) for n in names}


PUBLIC = {name: value for module in MODULES for name, value in public(module).items()}


def example(name: str, seen: tuple[str, ...] = ()) -> str:
    """The docstring that has the example of a public name: its own, that of the name to which it points, or, of what is
    neither function, class nor module, its module's."""
    module, _, own = name.rpartition(".")
    value = getattr(importlib.import_module(module), own)
    if not callable(value) and not inspect.ismodule(value):
        doc = inspect.getdoc(importlib.import_module(module)) or ""
        return doc if re.search(rf"^(>>>|\.\.\.) .*\b{own}\b", doc, re.M) else ""
    doc = inspect.getdoc(value) or ""
    if ">>>" in doc or name in seen:
        return doc if ">>>" in doc else ""
    points = re.findall(r"See `([\w.]+)`\.$", doc.strip())
    if not points:
        return ""
    to = points[-1] if points[-1].startswith("nnjax.") else f"{module}.{points[-1]}"
    return example(to, (*seen, name))


EXAMPLES = {doc: name for name in reversed(PUBLIC) if (doc := example(name))}  # each once
SOME = 10  # of so many one runs by default, the others in the slow tests


def test_every_public_name_has_an_example():
    assert len(PUBLIC) > 150
    assert [name for name in PUBLIC if not example(name)] == []


def failures(doc: str, name: str = "example") -> str:
    """What goes otherwise than a docstring says, in words."""
    test = doctest.DocTestParser().get_doctest(doc, {"jax": jax, "jnp": jnp, "nnjax": nnjax}, name, None, 0)
    out = io.StringIO()
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    failed = doctest.DocTestRunner(verbose=False, optionflags=flags).run(test, out=out.write).failed
    return out.getvalue() if failed else ""


@pytest.mark.parametrize(
    "doc",
    [pytest.param(doc, id=name, marks=[pytest.mark.slow] * (i % SOME > 0)) for i, (doc, name) in enumerate(EXAMPLES.items())],
)
@pytest.mark.in_turn
def test_its_example_runs(doc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not failures(doc, EXAMPLES[doc])


def test_an_example_that_is_wrong_is_seen():
    assert failures(">>> nnjax.relu().name\n'relu'\n") == ""
    assert "Expected" in failures(">>> nnjax.relu().name\n'tanh'\n")
    assert "NameError" in failures(">>> nnjaxx\n")


class Page(HTMLParser):
    """The anchors of a page, and what it links to."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for key, value in attrs:
            if key == "id" or (key == "name" and tag == "a"):
                self.anchors.add(value or "")
            elif key in ("href", "src") and value:
                self.links.append(value)


def dead(folder: Path, source: str = "https://github.com/nnjax/nnjax/blob/main/") -> list[str]:
    """The links of a built site that lead nowhere: to a page, a file or an anchor that is not there, or, of this repository,
    to a path that it has not."""
    pages = {path.resolve(): Page(path.read_text(errors="replace")) for path in folder.rglob("*.html")}
    wrong = []
    for path, page in pages.items():
        for link in page.links:
            if link.startswith(source):
                found = (ROOT / unquote(urlparse(link.removeprefix(source)).path)).exists()
            elif urlparse(link).scheme or link.startswith("//"):
                continue
            else:
                url, anchor = urldefrag(link)
                target = (path.parent / unquote(urlparse(url).path)).resolve() if urlparse(url).path else path
                target = target / "index.html" if target.is_dir() else target
                found = target.exists() and (not anchor or target not in pages or unquote(anchor) in pages[target].anchors)
            if not found:
                wrong.append(f"{path.relative_to(folder.resolve())}: {link}")
    return wrong


def test_dead_links_are_seen(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a id="x" href="b.html#y">b</a> <a href="#x">x</a> <a href="https://elsewhere.org/">e</a>'
    )
    (tmp_path / "b.html").write_text('<p id="y"></p> <img src="c.png"> <a href="a.html#z">z</a>')
    assert sorted(dead(tmp_path)) == ["b.html: a.html#z", "b.html: c.png"]


def test_a_docstring_becomes_an_equation_its_shapes_and_an_example():
    path = ROOT / "notebooks" / "site" / "docstrings.py"
    spec = importlib.util.spec_from_file_location("docstrings", path)
    docstrings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docstrings)
    lines = inspect.getdoc(nnjax.layer_norm).splitlines()
    docstrings.process(None, "function", "nnjax.layer_norm", nnjax.layer_norm, None, lines)
    text = "\n".join(lines)
    assert ".. container:: equation\n\n    y = scale (x - mean) / sqrt(variance + eps) + offset" in text
    assert "\n* ``x, y``: (..., n)" in text
    assert "\n**Raises** TypeError" in text
    assert "\n>>> layer = nnjax.layer_norm(4)\n" in text
    assert "\n    def layer_norm_bwd(" in text
    assert docstrings.escaped("a_ * b_ of `f(x_)` and `nnjax.dense`") == r"a\_ \* b\_ of ``f(x_)`` and :py:obj:`nnjax.dense`"


def inventory(folder: Path) -> set[str]:
    """The names that other sites can link to."""
    lines = zlib.decompress((folder / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    return {line.split(" ")[0] for line in lines if line.split(" ")[1].startswith("py:")}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(folder, seconds) of the site, built with warnings as errors."""
    folder, begun = tmp_path_factory.mktemp("site"), time.monotonic()
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "notebooks/site", "notebooks", str(folder)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, time.monotonic() - begun


@pytest.mark.slow
@pytest.mark.in_turn
def test_it_builds_in_time_without_a_warning_and_every_link_leads_somewhere(built):
    folder, seconds = built
    assert seconds < SECONDS
    assert dead(folder) == []
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert "<img" in (folder / f"{notebook.stem}.html").read_text()


@pytest.mark.slow
@pytest.mark.in_turn
def test_every_public_name_is_in_it(built):
    known = inventory(built[0])
    assert [name for name in PUBLIC if name not in known] == []
    assert "nnjax.dense" in known
    assert "dense" not in known


WIDTHS = (390, 1280)  # of a phone, of a screen


def too_wide(chromium, folder: Path, pages: list[str]) -> list[str]:
    """The pages that scroll sideways as a whole in a browser."""
    found = []
    for width in WIDTHS:
        context = chromium.new_context(viewport={"width": width, "height": 900})
        window = context.new_page()
        for page in pages:
            window.goto((folder / page).as_uri())
            if window.evaluate("document.documentElement.scrollWidth") > width:
                found.append(f"{page} at {width}")
        context.close()
    return found


@pytest.mark.in_turn
def test_a_page_that_is_too_wide_is_seen(chromium, tmp_path):
    (tmp_path / "wide.html").write_text('<div style="width: 700px">wide</div>')
    (tmp_path / "good.html").write_text("<p>good</p>")
    assert too_wide(chromium, tmp_path, ["wide.html", "good.html"]) == ["wide.html at 390"]


@pytest.mark.slow
@pytest.mark.in_turn
def test_no_page_scrolls_sideways(chromium, built):
    pages = [str(path.relative_to(built[0])) for path in built[0].rglob("*.html") if "_modules" not in path.parts]
    assert len(pages) > 30
    assert too_wide(chromium, built[0], sorted(pages)) == []
