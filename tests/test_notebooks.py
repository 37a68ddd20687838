"""Every notebook in a fresh kernel: no assertion fails, and cells marked `checked` print the stored output."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SECONDS = 180


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def checked(cell) -> bool:
    return "checked" in cell.metadata.get("tags", [])


def printed(cell) -> str:
    return "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout")


def run(notebook, seconds: int = SECONDS):
    """A copy of the notebook with the outputs of this run; CellExecutionError where a cell raises."""
    again = nbformat.from_dict(notebook)
    for cell in code(again):
        cell.outputs = []
    where = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(again, timeout=seconds, kernel_name="python3", resources=where).execute()
    return again


def compare(notebook, again) -> None:
    for i, (before, after) in enumerate(zip(code(notebook), code(again))):
        if checked(before):
            assert printed(after) == printed(before), f"code cell {i} prints something else than is stored"


def folded(cell) -> bool:
    return bool(cell.metadata.get("jupyter", {}).get("source_hidden"))


def pictures(cell) -> list:
    return [output for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})]


def test_there_are_eight():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06", "07", "08"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_short_and_stored_with_their_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert all(len(cell.source.splitlines()) <= (25 if folded(cell) else 15) for cell in code(notebook))
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert sum(checked(cell) and bool(printed(cell)) for cell in code(notebook)) >= 5
    assert sum("assert" in cell.source for cell in code(notebook)) >= 5
    outputs = [o for cell in code(notebook) for o in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or (o.output_type == "stream" and o.name == "stderr")]
    assert any("image/png" in o.get("data", {}) for o in outputs)
    first, last = notebook.cells[0], notebook.cells[-1]
    assert "?" in first.source
    assert "try" in last.source.lower()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_figures_are_folded_and_say_in_words_what_they_show(path):
    """`draw.show` puts the words into the output, and raises where text would be too small on a phone."""
    for cell in code(nbformat.read(path, as_version=4)):
        for picture in pictures(cell):
            words = picture.metadata["image/png"]["alt"]
            assert len(words) > 40
            assert cell.metadata["mystnb"]["image"]["alt"] == words  # where myst-nb reads it
            assert "draw.show(" in cell.source
            assert folded(cell)
        assert folded(cell) == ("hide-input" in cell.metadata.get("tags", ()))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_contents_link_to_every_section(path):
    """A heading's anchor is its text with - for spaces in Jupyter, and on GitHub where it has no signs that are escaped."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    headings = [line[3:] for cell in cells for line in cell.source.splitlines() if line.startswith("## ")]
    links = re.findall(r"^\* \[(.*)\]\(#(.*)\)$", cells[1].source, re.MULTILINE)
    assert links == [(heading, heading.replace(" ", "-")) for heading in headings]
    assert len(set(headings)) == len(headings) >= 4
    assert all(re.fullmatch(r"[\w ,.:?'-]+", heading) for heading in headings), headings


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_prints_what_is_stored(path, monkeypatch):
    monkeypatch.setenv("NNJAX_DATA", "")  # shipped data only
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # its numbers need XLA's default optimisations
    before = {file: file.read_bytes() for file in FOLDER.glob("*.png")}
    notebook = nbformat.read(path, as_version=4)
    for library in notebook.metadata.get("needs", ()):
        pytest.importorskip(library, reason=f"{path.stem} looks at {library}")
    try:
        compare(notebook, run(notebook))
    finally:
        for file, content in before.items():  # a picture may differ by the fonts of this machine
            file.write_bytes(content)


def small(*sources, tags=("checked",)):
    cells = [nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)}) for source in sources]
    return nbformat.v4.new_notebook(cells=cells)


@pytest.mark.in_turn
def test_the_test_sees_an_assertion_that_fails_and_other_text():
    with pytest.raises(CellExecutionError, match="AssertionError"):
        run(small("x = 1", "assert x == 2"))
    stored = run(small("import os; print(os.getcwd())", "print(2)"))
    compare(stored, run(stored))
    stored.cells[1].source = "print(3)"
    with pytest.raises(AssertionError, match="code cell 1 prints something else"):
        compare(stored, run(stored))
