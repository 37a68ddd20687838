"""`nnjax explain`: why the error goes back through the transpose of the weights, on a network small enough to read."""

import os
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import feedback, nielsen
from ..draw import GREEN, ORANGE, PINK, SKY, YELLOW
from ..errors import expect_arrays, expect_sizes, whole_number

COLORS = (SKY, YELLOW, GREEN, PINK, ORANGE)  # one for each neuron of a layer
MOST = len(COLORS)  # neurons in a layer, and layers: more do not fit
WIDTH = 80
NUDGE = 0.001
BY_HAND = (2, 2, 2)


class Network(NamedTuple):
    """Params, one example x and its target y; all are round numbers in float64."""

    params: nielsen.Params
    x: np.ndarray
    y: np.ndarray


class Numbers(NamedTuple):
    """What `nnjax explain` prints. k counts the neurons of the last layer but one, j those of the last.

    w: [j, k], b: [j]; z, a: [k]; z_next, a_next, y, delta: [j]; cost.
    Of the cost, by a_k: sent = w.T @ delta, and nudged = finite differences; by z_k: by_sum, by_transpose, by_grad.
    inverse_sent = inverse(w) @ delta, by_inverse = that times sigmoid'(z); None, and `refused` says why, where w has none.
    """

    w: np.ndarray
    b: np.ndarray
    z: np.ndarray
    a: np.ndarray
    z_next: np.ndarray
    a_next: np.ndarray
    y: np.ndarray
    cost: float
    delta: np.ndarray
    slope: np.ndarray
    sent: np.ndarray
    nudged: np.ndarray
    by_sum: np.ndarray
    by_transpose: np.ndarray
    by_grad: np.ndarray
    inverse_sent: np.ndarray | None
    by_inverse: np.ndarray | None
    refused: str


def parse_sizes(text: str) -> tuple[int, ...]:
    """ "3,2,4" -> (3, 2, 4).  Raises ValueError for what is no list of 2 to 5 numbers from 1 to 5."""
    parts = [part.strip() for part in text.split(",")] if isinstance(text, str) else []
    good = 2 <= len(parts) <= MOST and all(p.isascii() and p.isdecimal() and 1 <= int(p[:20]) <= MOST for p in parts)
    if not good:
        shown = text if not isinstance(text, str) or len(text) <= 40 else f"{text[:40]}..."
        raise ValueError(
            f"explain: --sizes must be 2 to {MOST} layers of 1 to {MOST} neurons each, separated by commas, so that the tables "
            f"fit, got {shown!r}; pass e.g. --sizes 3,2,4."
        )
    return tuple(map(int, parts))


def network(sizes: Sequence[int], seed: int | None = None) -> Network:
    """Numbers written by hand for two layers of two neurons, fed by two inputs; else drawn from the seed and rounded to 0.1."""
    sizes = expect_sizes("network", "sizes", sizes, "(3, 2, 4)")
    if sizes == BY_HAND and seed is None:
        w = (np.array([[1.0, -2.0], [2.0, 1.0]]), np.array([[1.0, -0.5], [2.0, 1.5]]))
        b = (np.array([0.5, -3.5]), np.array([0.0, -1.0]))
        return Network(nielsen.Params(w, b), np.array([1.0, 0.5]), np.array([1.0, 0.0]))  # type: ignore[arg-type]
    number = whole_number(0 if seed is None else seed)
    if number is None or not 0 <= number < 2**32:
        raise ValueError(f"explain: --seed must be from 0 to {2**32 - 1}, got {seed}; pass e.g. --seed 1.")
    key, of_x, of_y = jax.random.split(jax.random.key(number), 3)
    params = jax.tree.map(_rounded, nielsen.init(key, sizes))
    x = _rounded(jax.random.normal(of_x, sizes[:1], jnp.float32))
    return Network(params, x, np.asarray(jax.random.bernoulli(of_y, 0.5, sizes[-1:]), np.float64))


def _rounded(x: Array) -> np.ndarray:
    return np.round(np.asarray(x, np.float64), 1) + 0.0  # -0.0 + 0.0 is 0.0


def numbers(net: Network) -> Numbers:
    """The error of the last layer, and in every way what becomes of it in the layer before.

    Where there are but two layers, x stands for the z of the first, and nothing is before it.
    """
    if not isinstance(net, Network):
        raise TypeError(f"explain: numbers are those of a Network, got {type(net).__name__}; make one with network(sizes).")
    expect_arrays("numbers", "the network", net, "make one with network(sizes)")
    with jax.enable_x64(True):
        params, x, y = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), tuple(net))
        nielsen.backprop(params, x, y)  # refuses what does not fit together
        w, b = params
        z, a = x, x if len(w) > 1 else nielsen.sigmoid(x)
        for w_l, b_l in zip(w[:-1], b[:-1]):
            z = w_l @ a + b_l
            a = nielsen.sigmoid(z)
        last, z_next = nielsen.Params(w[-1:], b[-1:]), w[-1] @ a + b[-1]

        def cost(a: Array) -> Array:
            return nielsen.quadratic.value(nielsen.feedforward(last, a), y)

        a_next, slope = nielsen.feedforward(last, a), nielsen.sigmoid_prime(z)
        delta = nielsen.output_error(nielsen.quadratic, z_next, a_next, y)
        nudged = jnp.stack([(cost(a + step) - cost(a - step)) / (2 * NUDGE) for step in NUDGE * jnp.eye(len(a))])
        inverse_sent, refused = None, ""
        try:
            inverse_sent = feedback.inverse(w[-1]) @ delta
        except ValueError as error:
            refused = str(error).removeprefix("feedback.inverse: ")
        found = {
            "w": w[-1], "b": b[-1], "z": z, "a": a, "z_next": z_next, "a_next": a_next, "y": y, "delta": delta, "slope": slope,
            "sent": w[-1].T @ delta, "nudged": nudged, "inverse_sent": inverse_sent,
            "by_sum": nielsen.send_back_by_components(w[-1], delta, z),
            "by_transpose": nielsen.send_back(w[-1], delta, z),
            "by_grad": jax.grad(lambda z: cost(nielsen.sigmoid(z)))(z),
            "by_inverse": None if inverse_sent is None else inverse_sent * slope,
        }  # fmt: skip
        return Numbers(cost=float(cost(a)), refused=refused, **jax.tree.map(np.asarray, found))


def show(value: float, digits: int = 4) -> str:
    """A number as it is printed: 0.0473, never -0.0000, and 1.235e+04 for a large one."""
    text = f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.3e}"
    return text.lstrip("-") if float(text) == 0 else text


def _factor(value: float, digits: int = 4) -> str:
    text = show(value, digits)
    return f"({text})" if text.startswith("-") else text


def _terms(weights: Iterable[float], values: Iterable[float]) -> str:
    """1.0 * 0.6225 + (-0.5) * 0.3775, in which a line is broken only before or after a +."""
    return " + ".join(f"{_factor(w, 1)}\xa0*\xa0{_factor(v)}" for w, v in zip(weights, values))


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
        [f"  to {j + 1}", *(show(v, 1) for v in w[j]), f"row {j + 1} makes z_{j + 1}"]
        for j in range(n_out)
    ]  # fmt: skip
    lines = [[Text(v, style=COLORS[j]) for v in line] for j, line in enumerate(lines)]
    page.table([*top, ""], lines)
    page.head(f"2. A column of w carries the output of a neuron of {here}")
    lines = [[f"  to {j + 1}", *(show(v, 1) for v in w[j])] for j in range(n_out)]
    page.table(top, [*lines, ["", *(f"column {k + 1}" for k in range(n_in))]], COLORS[:n_in])
    page.say("As a matrix product sums along rows, the sum down a column of w is one along a row of w.T, in which the columns "
             "of w lie as rows:")  # fmt: skip
    lines = [
        [Text(v, style=COLORS[k]) for v in (f"  back to {k + 1}", *(show(v, 1) for v in w[:, k]), f"column {k + 1} of w")]
        for k in range(n_in)
    ]
    page.table(["", *(f"from {j + 1}" for j in range(n_out)), ""], lines)
    page.say("The answer on the web, about two layers of two neurons, numbers w_from,to. Its w11, w21 make the input of a "
             "neuron: here w[1,1], w[1,2], row 1. Its w11, w12 carry the output of one: here w[1,1], w[2,1], column "
             "1.")  # fmt: skip


def _forward(page: _Page, n: Numbers, here: str, following: str) -> None:
    page.head(f"3. Forward, from {here} to {following}: z = w a + b sums along the rows")
    for k in range(len(n.a)):
        page.say(f"{here}: z_{k + 1} = {show(n.z[k])}, a_{k + 1} = sigmoid(z_{k + 1}) = {show(n.a[k])}", COLORS[k])
    for j in range(len(n.b)):
        total = f"{_terms(n.w[j], n.a)} + {_factor(n.b[j], 1)} =\xa0{show(n.z_next[j])}, a_{j + 1}\xa0=\xa0{show(n.a_next[j])}"
        page.say(f"{following}: z_{j + 1} = {total}", COLORS[j], hang=9)
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
    if np.allclose(n.inverse_sent, n.sent):
        page.say("(4) agrees too, which is no rule: inverse and transpose are one only where w is orthogonal.")
    else:
        page.say("(4) is wrong.")
    page.say(f"The inverse answers another question: which change of the a of {here} would change the z of {following} by "
             f"exactly delta? By ({', '.join(map(show, n.inverse_sent))}), and w times that is "  # type: ignore[arg-type]
             f"({', '.join(map(show, n.w @ n.inverse_sent))}), delta itself. The cost does not occur in it.")  # type: ignore[operator]  # fmt: skip


@dataclass
class Explain:
    """Show in numbers why the error goes back through the transpose of the weights, and not through their inverse."""

    sizes: str = "2,2,2"
    """Neurons in each layer, separated by commas; shown are the last two layers."""
    seed: int | None = None
    """Draw the numbers from this seed; by default 2,2,2 has round numbers written by hand, other sizes those of seed 0."""

    def run(self) -> int:
        """Print the weights, the numbers forward and those backward."""
        sizes = parse_sizes(self.sizes)
        n = numbers(network(sizes, self.seed))
        here, following = f"layer {len(sizes) - 1}", f"layer {len(sizes)}"
        page = _Page()
        page.console.print(f"Why the transpose? A network of {', '.join(map(str, sizes))} neurons; its last two layers.")
        page.say(f"w[j,k] is the weight from neuron k of {here} to neuron j of {following}, as in Nielsen's book. Neurons "
                 "count from 1; numbers are rounded to 4 decimals.")  # fmt: skip
        if len(sizes) == 2:
            page.say(f"Nothing stands before {here}: its z are given.")
        _rows_and_columns(page, n.w, here, following)
        _forward(page, n, here, following)
        _backward(page, n, here, following)
        _compared(page, n, here, following)
        return 0
