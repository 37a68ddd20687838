"""The page on which the answer can be played with: found, pointed at a network, opened."""

import json
import webbrowser
from pathlib import Path
from urllib.parse import quote

from .numbers import Numbers

PAGE = "why_the_transpose.html"
PACKAGE = Path(__file__).parents[2]


def find_page(folders: tuple[Path, ...] = (PACKAGE, PACKAGE.parent / "notebooks")) -> Path:
    """The file of the page: a wheel has it in the package, a checkout among the notebooks.  Raises FileNotFoundError."""
    for folder in folders:
        if (folder / PAGE).is_file():
            return folder / PAGE
    raise FileNotFoundError(
        f"explain: --web shows the page {PAGE}, which is in none of {', '.join(map(str, folders))}; install nnjax again."
    )


def address(n: Numbers | None = None) -> str:
    """The page's address as a file; with the last two layers of a network, the page begins with that one."""
    page = find_page().as_uri()
    if n is None:
        return page
    shown = {"w": n.w, "b": n.b, "u": n.z, "y": n.y}
    return f"{page}#{quote(json.dumps({name: values.tolist() for name, values in shown.items()}, separators=(',', ':')))}"


def open_page(n: Numbers | None = None) -> int:
    """Open the page in a browser, or say where it is."""
    if webbrowser.open(address(n)):
        print(f"The page is open in a browser: {find_page()}")
    else:
        print(f"No browser was found here. Open this file in one, on this machine or another: {find_page()}")
    return 0
