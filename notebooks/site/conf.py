"""nnjax's site, by Sphinx: `sphinx-build -W -c notebooks/site notebooks FOLDER`."""

import re
import sys
from pathlib import Path

SITE = Path(__file__).parent
NOTEBOOKS, REPOSITORY = SITE.parent, SITE.parents[1]
sys.path[:0] = [str(SITE), str(REPOSITORY)]

import commands  # noqa: E402
import docstrings  # noqa: E402
import measured  # noqa: E402

import nnjax  # noqa: E402

SOURCE = "https://github.com/nnjax/nnjax/blob/main"
PAGE = NOTEBOOKS / "why_the_transpose.html"  # one file of its own, which is copied as it is

project, author = "nnjax", "The nnjax authors"
version = release = nnjax.__version__
root_doc = "index"
smartquotes = False  # three dots of a shape stay three
extensions = ["myst_nb", "sphinx_copybutton", "for_notebooks"]
extensions += [f"sphinx.ext.{name}" for name in ("autodoc", "extlinks", "viewcode")]
exclude_patterns = ["results", "**/.ipynb_checkpoints"]
extlinks = {"source": (f"{SOURCE}/%s", "%s")}

html_math_renderer = "mathml"
html_theme = "furo"
html_title = "nnjax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["../why_the_transpose.html"] if PAGE.exists() else []
html_copy_source = False
html_theme_options = {
    "source_repository": "https://github.com/nnjax/nnjax/",
    "source_branch": "main",
    "source_directory": "notebooks/",
}
pygments_style, pygments_dark_style = "friendly", "monokai"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

nb_execution_mode = "off"  # they are stored executed, and a test runs them
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "substitution"]
myst_dmath_double_inline = True  # notebooks have formulas on lines of their own in the middle of a paragraph
myst_heading_anchors = 4
myst_heading_slug_func = "for_notebooks.anchor"
myst_url_schemes = {"http": None, "https": None, "as-it-is": "{{path}}"}  # the last: a file of `html_extra_path`
myst_substitutions = measured.tables(NOTEBOOKS / "results") | commands.helped()

autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
maximum_signature_line_length = 76
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
viewcode_line_numbers = True
linkcheck_ignore = [rf"{SOURCE}/.*", "https://github.com/nnjax/.*"]  # of this repository, whose own paths a test looks up
linkcheck_anchors = False


def with_readme(app, docname, source):
    """The README stands in the index: there its links lead to this site, or to the file in the repository."""
    if docname != "index":
        return
    readme = (REPOSITORY / "README.md").read_text()
    _, text = readme.split("\n", 1)  # without its title

    def moved(link):
        to = link[1]
        if to.startswith(("#", "http")):
            return link[0]
        path = to.removeprefix("notebooks/")
        if path == to or not (NOTEBOOKS / path.split("#")[0]).is_file():
            return f"]({SOURCE}/{to})"
        return f"](as-it-is:{path})" if path.endswith(".html") else f"]({path})"

    page = f"[The page: the question and its answer, to play with](as-it-is:{PAGE.name})" if PAGE.exists() else ""
    source[0] = source[0].replace("@README@", re.sub(r"\]\(([^)]+)\)", moved, text)).replace("@PAGE@", page)


def with_anchors(app, pagename, templatename, context, doctree):
    """Of a page of source, the links back to the reference: viewcode takes one package for all names of a file."""
    if not pagename.startswith("_modules/"):
        return
    objects = app.env.domains.python_domain.objects

    def moved(link):
        page, name = link.groups()
        own = name.rpartition(".")[2]
        here = [o.node_id for full, o in objects.items() if full.endswith(f".{own}") and page.endswith(f"{o.docname}.html")]
        return link[0] if name in objects or not here else f'href="{page}#{here[0]}"'

    context["body"] = re.sub(r'href="([^"#]+)#(nnjax[\w.]*)"', moved, context["body"])


def setup(app):
    app.connect("source-read", with_readme)
    app.connect("html-page-context", with_anchors)
    app.connect("autodoc-process-docstring", docstrings.process)
