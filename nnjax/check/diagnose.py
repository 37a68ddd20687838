"""What a wrong gradient looks like, in one word and one sentence."""

from collections.abc import Sequence

import numpy as np

from .oracle import Budget, norms
from .report import Diagnosis


def diagnose(h: np.ndarray, budget: Budget, sizes: Sequence[tuple[str, int]] = (), primal: bool = False) -> Diagnosis:
    """The kind of error in h, held against the budget of its leaf. sizes: named lengths that a factor may equal."""
    t, bound = budget.truth, budget.bound
    where = _where(h, t, budget)
    if primal:
        return Diagnosis("wrong_primal", f"the value that fwd returns is not the reference's: {where}")
    bad = ~np.isfinite(h) & budget.finite
    if bad.any():
        first = np.unravel_index(np.flatnonzero(bad)[0], h.shape)
        return Diagnosis("not_finite", f"{_share(bad)} not finite where the reference is, first at {_index(first)}")

    def close(a, b, slack=1.0):
        return bool((norms((a - b)[budget.finite]) <= slack * bound).all())

    if not np.any(h):
        return Diagnosis("zero", f"zero everywhere, where the reference has norm {budget.size[0]:.3g}")
    if close(h, -t):
        return Diagnosis("negated", "equals minus the reference")
    energy = float(np.vdot(t, t))
    factor = float(np.vdot(t, h)) / energy if energy > 0 else 0.0
    if factor != 0 and close(h, factor * t, max(1.0, abs(factor)) * 1.5):
        return Diagnosis("scaled", _scaled(factor, sizes))
    if t.ndim == 2 and t.shape[0] == t.shape[1] and close(h, t.T):
        return Diagnosis("transposed", "equals the transpose of the reference")
    entries = np.abs(h - t) > bound[1]
    if 0 < entries.sum() < h.size and entries.mean() <= 0.75:
        zero = " and zero elsewhere" if not np.any(h[entries]) else ""
        return Diagnosis("partial", f"equals the reference but in {_share(entries)}{zero}: {where}")
    if close(np.sort(h, axis=None).reshape(h.shape), np.sort(t, axis=None).reshape(h.shape)):
        return Diagnosis("permuted", f"has the reference's entries in another order: {where}")
    return Diagnosis("unknown", where)


def _scaled(factor: float, sizes) -> str:
    words = f"{'larger' if abs(factor) > 1 else 'smaller'} by {max(abs(factor), 1 / abs(factor)):.6g}"
    words += ", and negated" if factor < 0 else ""
    for name, n in sizes:
        if n > 1 and np.isclose(abs(factor), n, rtol=1e-3):
            return f"{words}, {name}: a mean written as a sum?"
        if n > 1 and np.isclose(abs(factor), 1 / n, rtol=1e-3):
            return f"{words}, {name}: a sum written as a mean?"
    return words


def _share(mask: np.ndarray) -> str:
    return f"{int(mask.sum())} of {mask.size} entries"


def _index(index) -> str:
    return "[" + ", ".join(str(int(i)) for i in index) + "]"


def _where(h, t, budget) -> str:
    difference = np.where(budget.finite, np.abs(h - t), 0.0)
    difference = np.where(np.isnan(difference), np.inf, difference)
    if difference.size == 0 or difference.max() == 0:
        return "equal where both are finite"
    worst = np.unravel_index(np.argmax(difference), difference.shape)
    over = difference > budget.bound[1]
    first = np.unravel_index(np.flatnonzero(over)[0], h.shape) if over.any() else worst
    return f"{_share(over)} off, first at {_index(first)}, worst at {_index(worst)}: {h[worst]:.6g} instead of {t[worst]:.6g}"
