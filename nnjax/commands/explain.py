"""`nnjax explain`: why the error goes back through the transpose of the weights, on a network small enough to read."""

import os
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..draw import GREEN, ORANGE, PINK, SKY, YELLOW
from .explaining.numbers import BY_HAND, NUDGE, Numbers, network, numbers, parse_sizes, parse_weights, with_weights
from .explaining.web import open_page

COLORS = (SKY, YELLOW, GREEN, PINK, ORANGE)  # one for each neuron of a layer
WIDTH = 80


def show(value: float, digits: int = 4) -> str:
    """A number as it is printed: 0.0473, never -0.0000, and 1.235e+04 for a large one."""
    text = f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.3e}"
    return text.lstrip("-") if float(text) == 0 else text


def _weight(value: float) -> str:
    """A number that was given, with as many decimals as it has: 0.5, 0.25, -1.0."""
    whole, _, decimals = show(value).partition(".")
    return f"{whole}.{decimals.rstrip('0') or '0'}"


def _factor(text: str) -> str:
    return f"({text})" if text.startswith("-") else text


def _terms(weights: Iterable[float], values: Iterable[float]) -> str:
    """1.0 * 0.6225 + (-0.5) * 0.3775, in which a line is broken only before or after a +."""
    return " + ".join(f"{_factor(_weight(w))}\xa0*\xa0{_factor(show(v))}" for w, v in zip(weights, values))


class _Page:
    """A console of 80 columns; on a pipe, and where NO_COLOR is set, it prints plain text."""

    def __init__(self) -> None:
        plain = bool(os.environ.get("NO_COLOR"))
        self.console = Console(width=WIDTH, highlight=False, markup=False, emoji=False, color_system=None if plain else "auto")

    def head(self, text: str) -> None:
        self.console.print()
        self.console.print(text, style="bold")

    def say(self, text: str, style: str = "", hang: int = 0) -> None:
        """Lines of text, those after the first further in by `hang`."""
        filled = textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent=" " * (2 + hang), break_on_hyphens=False)
        self.console.print(filled.replace("\xa0", " "), style=style)

    def table(self, top: Sequence[str], rows: Iterable[Sequence[str | Text]], styles: Sequence[str] = ()) -> None:
        """The first entry of a row is its label; styles: one for each of the others."""
        grid = Table(box=None, pad_edge=False, padding=(0, 0, 0, 2))
        for i, name in enumerate(top):
            style = styles[i - 1] if i and styles else ""
            grid.add_column(name, style=style, header_style=style, justify="right" if i else "left", no_wrap=True)
        for row in rows:
            grid.add_row(*row)
        self.console.print(grid)


def _rows_and_columns(page: _Page, w: np.ndarray, here: str, following: str) -> None:
    n_out, n_in = w.shape
    top = ["", *(f"from {k + 1}" for k in range(n_in))]
    page.head(f"1. A row of w makes the input of a neuron of {following}")
    lines = [
        [f"  to {j + 1}", *(_weight(v) for v in w[j]), f"row {j + 1} makes z_{j + 1}"]
        for j in range(n_out)
    ]  # fmt: skip
    lines = [[Text(v, style=COLORS[j]) for v in line] for j, line in enumerate(lines)]
    page.table([*top, ""], lines)
    page.head(f"2. A column of w carries the output of a neuron of {here}")
    lines = [[f"  to {j + 1}", *(_weight(v) for v in w[j])] for j in range(n_out)]
    page.table(top, [*lines, ["", *(f"column {k + 1}" for k in range(n_in))]], COLORS[:n_in])
    page.say("As a matrix product sums along rows, the sum down a column of w is one along a row of w.T, in which the columns "
             "of w lie as rows:")  # fmt: skip
    lines = [
        [Text(v, style=COLORS[k]) for v in (f"  back to {k + 1}", *(_weight(v) for v in w[:, k]), f"column {k + 1} of w")]
        for k in range(n_in)
    ]
    page.table(["", *(f"from {j + 1}" for j in range(n_out)), ""], lines)
    if w.size == 1:
        page.say("With one neuron in each layer, row and column are the same number, and w.T is w itself. The inverse, if w "
                 "is not 0, is 1 / w.")  # fmt: skip


def _forward(page: _Page, n: Numbers, here: str, following: str) -> None:
    page.head(f"3. Forward, from {here} to {following}: z = w a + b sums along the rows")
    for k in range(len(n.a)):
        page.say(f"{here}: z_{k + 1} = {show(n.z[k])}, a_{k + 1} = sigmoid(z_{k + 1}) = {show(n.a[k])}", COLORS[k])
    for j in range(len(n.b)):
        total = f"{_terms(n.w[j], n.a)} + {_factor(_weight(n.b[j]))} =\xa0{show(n.z_next[j])}"
        page.say(f"{following}: z_{j + 1} = {total}, a_{j + 1}\xa0=\xa0{show(n.a_next[j])}", COLORS[j], hang=9)
    page.say(f"target y = {', '.join(show(v, 0) for v in n.y)};  cost C = |a - y|^2 / 2 = {show(n.cost)}")


def _backward(page: _Page, n: Numbers, here: str, following: str) -> None:
    page.head(f"4. Backward: the error of {following}, delta_j = (a_j - y_j) sigmoid'(z_j)")
    for j in range(len(n.delta)):
        page.say(f"{following}: delta_{j + 1} = {show(n.delta[j])}", COLORS[j])
    page.say(f"A nudge of a_k in {here} reaches the cost by every edge that leaves it, so its share of the error is a sum down "
             "column k:")  # fmt: skip
    for k in range(len(n.a)):
        page.say(f"{here}: dC/da_{k + 1} = {_terms(n.w[:, k], n.delta)} =\xa0{show(n.sent[k])}", COLORS[k], hang=9)


def _compared(page: _Page, n: Numbers, here: str, following: str) -> None:
    neurons = [f"k = {k + 1}" for k in range(len(n.a))]

    def line(name: str, values: np.ndarray | None) -> list[str]:
        return [f"  {name}", *(["none"] * len(neurons) if values is None else map(show, values))]

    page.head(f"5. What is sent back to {here}, dC/da_k, and what a nudge of a_k shows")
    page.table(["", *neurons], [
        line("w.T @ delta", n.sent), line(f"nudged by {NUDGE}", n.nudged),
        line("inverse(w) @ delta", n.inverse_sent),
    ], COLORS[: len(neurons)])  # fmt: skip
    page.head(f"6. The error of {here}, delta_k = dC/dz_k = dC/da_k sigmoid'(z_k), in four ways")
    page.table(["", *neurons], [
        line("sigmoid'(z_k)", n.slope), line("(1) sum over edges", n.by_sum), line("(2) transpose", n.by_transpose),
        line("(3) jax.grad by z", n.by_grad), line("(4) inverse", n.by_inverse),
    ], COLORS[: len(neurons)])  # fmt: skip
    page.say("(1), (2), (3) agree, and w.T @ delta agrees with the nudge of a_k.")
    if n.inverse_sent is None:
        page.say(f"(4) cannot be had: {n.refused}")
        return
    orthogonal = np.allclose(n.w.T @ n.w, np.eye(len(n.a)), rtol=0, atol=1e-12)
    if np.allclose(n.inverse_sent, n.sent, rtol=1e-9, atol=0):
        page.say("(4) agrees too: this w is orthogonal, and only then is the inverse the transpose." if orthogonal else
                 "(4) agrees too, for this delta: inverse and transpose are the same only if w is orthogonal.")  # fmt: skip
    else:
        page.say("(4) is wrong.")
    page.say(f"The inverse answers another question: which change of the a of {here} would change the z of {following} by "
             f"exactly delta? By ({', '.join(map(show, n.inverse_sent))}), and w times that is "  # type: ignore[arg-type]
             f"({', '.join(map(show, n.w @ n.inverse_sent))}), delta itself. The cost does not occur in it.")  # type: ignore[operator]  # fmt: skip


@dataclass
class Explain:
    """Show in numbers why the error goes back through the transpose of the weights, and not through their inverse."""

    sizes: str | None = None
    """Neurons in each layer, separated by commas; the last two layers are shown. Default: 2,2,2, or the sizes of --weights."""
    seed: int | None = None
    """Draw the numbers from this seed; by default 2,2,2 has round numbers written by hand, others those of seed 0."""
    weights: str | None = None
    """The weights of the last layer, a matrix in JSON such as [[0.8,-0.5],[0.3,1.2]], a row for each of its neurons."""
    web: bool = False
    """Open the interactive page notebooks/why_the_transpose.html in a browser, with this network; it loads nothing else."""

    def run(self) -> int:
        """Print the weights, the numbers forward and those backward; or open the page."""
        sizes = None if self.sizes is None else parse_sizes(self.sizes)
        if self.web and (self.sizes, self.seed, self.weights) == (None, None, None):
            return open_page()
        if self.weights is None:
            net = network(sizes or BY_HAND, self.seed)
        else:
            net = with_weights(parse_weights(self.weights), sizes, self.seed)
        n = numbers(net)
        if self.web:
            return open_page(n)
        layers = [len(net.x), *map(len, net.params.b)]
        here, following = f"layer {len(layers) - 1}", f"layer {len(layers)}"
        page = _Page()
        last = "; its last two layers" if len(layers) > 2 else ""
        page.console.print(f"Why the transpose? A network of {', '.join(map(str, layers))} neurons{last}.")
        page.say(f"w[j,k] is the weight from neuron k of {here} to neuron j of {following}, as in Nielsen's book. Neurons "
                 "count from 1; numbers are rounded to 4 decimals.")  # fmt: skip
        if len(layers) == 2:
            given = self.seed is None and self.weights is None and sizes == BY_HAND
            drawn = "" if given else f"; they and the target are drawn from seed {self.seed or 0}, and --seed draws others"
            page.say(f"Nothing stands before {here}: its z are given{drawn}.")
        _rows_and_columns(page, n.w, here, following)
        _forward(page, n, here, following)
        _backward(page, n, here, following)
        _compared(page, n, here, following)
        return 0
