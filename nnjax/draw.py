"""Pictures of matrices, and of the neurons between which they stand, as the notebooks show them.

Everything is drawn on a matplotlib axis that is passed in. Colours are Okabe and Ito's, which the colour-blind tell apart;
numbers run from orange (negative) over white to blue.

>>> from nnjax.draw import BLUE, GREEN, ORANGE, PALETTE, PINK, SKY, YELLOW
>>> PALETTE[:6] == (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY)
True
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = [
    "BLUE", "GREEN", "ORANGE", "PALETTE", "PINK", "SKY", "YELLOW", "arrows", "contours", "diverging", "layers", "matrix",
    "show", "smallest_text", "transposes", "use_style",
]  # fmt: skip

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY = PALETTE[:6]
_NARROW, _LEGIBLE = 500, 8  # pixels: a phone's width, and the height of a letter that can still be read there


def use_style() -> None:
    """What every figure has in common: set once at the top of a notebook. 8 x 3.6 inches at 100 dots: 800 pixels wide.

    >>> import matplotlib
    >>> with matplotlib.rc_context():
    ...     nnjax.draw.use_style()
    """
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update({
        "figure.figsize": (8, 3.6), "figure.dpi": 100, "savefig.dpi": 100, "figure.constrained_layout.use": True,
        "savefig.pad_inches": 0.04,
        "font.size": 10, "axes.titlesize": 10, "axes.prop_cycle": cycler(color=PALETTE), "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": False, "legend.frameon": False,
    })  # fmt: skip


def diverging() -> Any:
    """Orange (negative), white (zero), blue (positive).

    >>> nnjax.draw.diverging().name
    'orange_blue'
    """
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("orange_blue", [ORANGE, "#FFFFFF", BLUE])


def _numbers(who: str, what: str, values: Any, axes: tuple[int, ...], expected: str) -> np.ndarray:
    """The values as floats, or a ValueError that names what was expected and what came."""
    try:
        found = np.asarray(values)
        real = found.dtype.kind in "biuf" or found.dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")
    except ValueError:  # rows of several lengths
        found, real = np.empty(0, object), False
    if not real or found.ndim not in axes or not found.size:
        came = f"{found.dtype} {found.shape}" if found.dtype != object else "rows of several lengths, or no numbers"
        raise ValueError(f"draw.{who}: {what} must {expected}, got {came}; pass e.g. np.eye(2).")
    return found.astype(float)


def matrix(
    ax: Any, values: Any, title: str = "", *, numbers: bool | None = None, limit: float | None = None,
    rows: str | Sequence[str] = "", columns: str | Sequence[str] = "", row: int | None = None, column: int | None = None,
) -> Any:  # fmt: skip
    """A matrix (or a vector, as a column) as coloured cells, white at zero; numbers written in where there are at most 64.

    limit: the size at which colours are full, by default the largest entry's; rows, columns: a label for the axis, or one
    for each row or column; row, column: the number of one to frame.
    Raises ValueError for values that are no matrix or vector of real numbers, or empty.

    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> nnjax.draw.matrix(ax, [[1.0, -2.0], [0.0, 3.0]], "w", row=0).get_array().shape
    (2, 2)
    """
    values = _numbers("matrix", "values", values, (1, 2), "be a matrix or a vector of numbers, with at least one")
    values = values[:, None] if values.ndim == 1 else values
    finite = np.abs(values[np.isfinite(values)])
    limit = limit or float(finite.max(initial=0.0)) or 1.0
    image = ax.imshow(values, cmap=diverging(), vmin=-limit, vmax=limit, aspect="equal" if values.size <= 400 else "auto")
    if numbers if numbers is not None else values.size <= 64:
        for (i, j), v in np.ndenumerate(values):
            dark = np.isfinite(v) and abs(v) > 0.7 * limit
            ax.text(j, i, f"{v:.3g}", ha="center", va="center", fontsize=9.5, color="white" if dark else "black")
    for axis, labels in ((ax.yaxis, rows), (ax.xaxis, columns)):
        if isinstance(labels, str):
            axis.set_ticks([])
            axis.set_label_text(labels)
        else:
            axis.set_ticks(range(len(labels)), labels)
    for spine in ax.spines.values():
        spine.set_visible(True)
    if row is not None:
        _frame(ax, -0.5, row - 0.5, values.shape[1], 1)
    if column is not None:
        _frame(ax, column - 0.5, -0.5, 1, values.shape[0])
    ax.set_title(title)
    return image


def _frame(ax, x, y, width, height) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((x, y), width, height, fill=False, lw=2.5, ec="black", clip_on=False))


def layers(
    ax: Any, w: Any, title: str = "", *, backward: bool = False, into: int | None = None, out_of: int | None = None,
    left: Sequence[str] | None = None, right: Sequence[str] | None = None, numbers: bool = True,
) -> None:  # fmt: skip
    """Two layers of neurons and the weights between them, w: (neurons out, neurons in) as in the book: an arrow for each.

    backward: the arrows point back. into: only what arrives at this neuron of the right layer, a row of w, is in colour;
    out_of: only what leaves this neuron of the left layer, a column of w.  left, right: what is written in the neurons.
    Raises ValueError if w is no matrix of real numbers, or empty.

    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> nnjax.draw.layers(ax, [[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], "forward", into=0)
    >>> len(ax.lines)
    5
    """
    w = _numbers("layers", "w", w, (2,), "be a matrix of numbers, with at least one")
    n_out, n_in = w.shape
    y_in, y_out = -(np.arange(n_in) - (n_in - 1) / 2), -(np.arange(n_out) - (n_out - 1) / 2)
    limit = np.abs(w).max() or 1.0
    for j in range(n_out):
        for k in range(n_in):
            shown = (into is None or into == j) and (out_of is None or out_of == k)
            ends = [(0.0, y_in[k]), (2.0, y_out[j])]
            start, end = ends[::-1] if backward else ends
            color = "#BBBBBB" if not shown else BLUE if w[j, k] >= 0 else ORANGE
            ax.annotate("", xy=end, xytext=start, zorder=2 if shown else 1, arrowprops={
                "arrowstyle": "-|>", "color": color, "lw": 0.6 + 2.4 * abs(w[j, k]) / limit if shown else 0.6,
                "shrinkA": 15, "shrinkB": 15})  # fmt: skip
            if numbers and shown:
                at = 0.62 if backward else 0.3  # near where the arrow starts, so that crossing arrows keep their numbers
                at = at if n_in * n_out > 1 else 0.5
                ax.text(2 * at, y_in[k] + at * (y_out[j] - y_in[k]), f"{w[j, k]:.3g}", fontsize=9.5, ha="center", va="center",
                        zorder=4, bbox={"boxstyle": "round,pad=0.12", "fc": "white", "ec": "none"})  # fmt: skip
    for x, ys, labels in ((0.0, y_in, left), (2.0, y_out, right)):
        for i, y in enumerate(ys):
            ax.plot(x, y, "o", ms=26, mfc="white", mec="black", mew=1.2, zorder=3)
            if labels is not None:
                ax.text(x, y, labels[i], ha="center", va="center", fontsize=10, zorder=5)
    ax.set(xlim=(-0.5, 2.5), ylim=(min(y_in.min(), y_out.min()) - 0.6, max(y_in.max(), y_out.max()) + 0.6), title=title)
    ax.set_aspect("equal")
    ax.axis("off")


def transposes(
    axes: Sequence[Any], values: Any, title: str = "", *, rows: str | Sequence[str] = "outputs y",
    columns: str | Sequence[str] = "inputs x", blocks: tuple[int, int] | None = None, numbers: bool | None = None,
) -> None:  # fmt: skip
    """A matrix J on the first of two axes and its transpose on the second: rows and columns change places, and their labels.

    blocks: (rows, columns) of the blocks of J that lines mark off.
    Raises ValueError if values are no matrix of real numbers, or empty.

    >>> from matplotlib.figure import Figure
    >>> axes = Figure().subplots(1, 2)
    >>> nnjax.draw.transposes(axes, [[1.0, 2.0, 3.0]], "J")
    >>> [ax.images[0].get_array().shape for ax in axes]
    [(1, 3), (3, 1)]
    """
    values = _numbers("transposes", "values", values, (2,), "be a matrix of numbers, with at least one")
    cut = blocks or values.shape
    for ax, name, shown, labels, (high, across) in (
        (axes[0], "$J$", values, (rows, columns), cut), (axes[1], "$J^T$", values.T, (columns, rows), cut[::-1]),
    ):  # fmt: skip
        matrix(ax, shown, f"{title}: {name}" if title else name, numbers=numbers, rows=labels[0], columns=labels[1])
        ax.set_aspect("equal")
        for at in range(high, shown.shape[0], high):
            ax.axhline(at - 0.5, color="black", lw=0.8)
        for at in range(across, shown.shape[1], across):
            ax.axvline(at - 0.5, color="black", lw=0.8)


def arrows(ax: Any, vectors: Any, start: Sequence[float] = (0.0, 0.0), colors: Sequence[str] = PALETTE) -> None:
    """Vectors of the plane, (n, 2), as arrows of their true length from one point, each in a colour of its own.

    Raises ValueError for other vectors.

    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> nnjax.draw.arrows(ax, [[1.0, 0.0], [0.5, 2.0]])
    >>> len(ax.collections)
    1
    """
    vectors = np.atleast_2d(_numbers("arrows", "vectors", vectors, (1, 2), "have shape (n, 2)"))
    if vectors.shape[1] != 2:
        raise ValueError(f"draw.arrows: vectors must have shape (n, 2), got {vectors.shape}; pass pairs (x, y).")
    x, y = np.broadcast_to(np.asarray(start, float), vectors.shape).T
    width = {"width": 2.6 / 72, "units": "inches"}
    ax.quiver(x, y, *vectors.T, angles="xy", scale_units="xy", scale=1, color=list(colors[: len(vectors)]), zorder=3, **width)


def contours(
    ax: Any, f: Any, x: tuple[float, float], y: tuple[float, float], levels: Any = 10, colors: Any = "#AAAAAA"
) -> Any:  # fmt: skip
    """Lines of the rectangle x times y along which f: (points, 2) -> (points,) is constant; both axes to one scale.

    Raises ValueError if f returns anything else.

    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> lines = nnjax.draw.contours(ax, lambda p: (p**2).sum(-1), (-1, 1), (-1, 1), levels=[0.5])
    >>> len(lines.levels)
    1
    """
    grid = np.stack(np.meshgrid(np.linspace(*x, 81), np.linspace(*y, 81)), -1)
    points = grid.reshape(-1, 2)
    values = np.asarray(f(points))
    if values.shape != points.shape[:1]:
        raise ValueError(
            f"draw.contours: f must return one number for each of {len(points)} points, got {values.shape}; sum over the last "
            "axis of its argument."
        )
    lines = ax.contour(grid[..., 0], grid[..., 1], values.reshape(81, 81), levels=levels, colors=colors, linewidths=0.9)
    ax.set(aspect="equal", xlim=x, ylim=y)
    return lines


def smallest_text(figure: Any) -> float:
    """The size of a figure's smallest text, in pixels, where the figure is shown 500 pixels wide.

    Indices and exponents of a formula are smaller than the formula's size, which counts.

    >>> from matplotlib.figure import Figure
    >>> figure = Figure(figsize=(5, 3))
    >>> axes = figure.subplots()
    >>> nnjax.draw.smallest_text(figure) > 8
    True
    """
    from matplotlib.text import Text

    figure.canvas.draw()
    width = figure.get_tightbbox().width  # inches, as notebooks crop it
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    smallest = min((text.get_fontsize() for text in shown), default=float("inf"))
    return float(smallest * _NARROW / (72 * width))


def show(words: str) -> None:
    """Show the current figure in a notebook, with words for those who cannot see it, and close it.

    Raises ValueError without words, and where text would be less than 8 pixels high in a figure 500 pixels wide.

    >>> nnjax.draw.show("")
    Traceback (most recent call last):
    ValueError: draw.show: expected a sentence for those who cannot see the figure, got none; say what it shows.
    """
    import matplotlib.pyplot as plt
    from IPython.display import display

    if not words.strip():
        raise ValueError("draw.show: expected a sentence for those who cannot see the figure, got none; say what it shows.")
    figure = plt.gcf()
    size = smallest_text(figure)
    if size < _LEGIBLE:
        raise ValueError(
            f"draw.show: the smallest text is {size:.1f} pixels high where the figure is {_NARROW} pixels wide, expected at "
            f"least {_LEGIBLE}; make the text larger or the figure narrower."
        )
    display(figure, metadata={"image/png": {"alt": words}})
    plt.close(figure)
