"""The interactive page of `nnjax explain --web`: find it, give it a network, open it."""

import json
import webbrowser
from pathlib import Path
from urllib.parse import quote

from .numbers import Numbers

PAGE = "why_the_transpose.html"
PACKAGE = Path(__file__).parents[2]


def find_page(folders: tuple[Path, ...] = (PACKAGE, PACKAGE.parent / "notebooks")) -> Path:
    """The file of the page: in the package of a wheel, among the notebooks of a checkout.  Raises FileNotFoundError."""
    for folder in folders:
        if (folder / PAGE).is_file():
            return folder / PAGE
    raise FileNotFoundError(
        f"explain: --web needs the page {PAGE}, which is not in {' or '.join(map(str, folders))}; reinstall nnjax."
    )


def address(n: Numbers | None = None) -> str:
    """The address of the page's file; given the numbers of a network, the page starts with that network."""
    page = find_page().as_uri()
    if n is None:
        return page
    shown = {"w": n.w, "b": n.b, "u": n.z, "y": n.y}
    return f"{page}#{quote(json.dumps({name: values.tolist() for name, values in shown.items()}, separators=(',', ':')))}"


def open_page(n: Numbers | None = None) -> int:
    """Open the page in a browser, or print its path if there is none."""
    if webbrowser.open(address(n)):
        print(f"The page is open in a browser: {find_page()}")
    else:
        print(f"No browser was found. Open this file in one: {find_page()}")
    return 0
