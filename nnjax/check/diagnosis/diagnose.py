"""Describe a wrong gradient in one word and one sentence."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..report import Diagnosis
from ..witness.oracle import Budget, norms

TIMES = 64  # factor of the cotangent in the test of linearity: enough to reach a bound at which a rule clips


class Context(NamedTuple):
    """What a diagnosis may compare with. sizes: named lengths that a factor may equal; found: the budget of every leaf;
    inputs: the leaves of the arguments; mistaken() -> [(kind, detail, {leaf: its value})] under common mistakes; ct: the
    cotangent, if it is a single number; axes: the sizes of a mesh, named; suspects(leaf) -> [(kind, detail, its value)] under
    known faults; scaled() -> the rule's cotangents by leaf, at a cotangent of 0 and at TIMES the given one.
    """

    sizes: Sequence[tuple[str, int]] = ()
    found: dict[str, Budget] = {}  # noqa: RUF012  (never written to)
    inputs: dict[str, np.ndarray] = {}  # noqa: RUF012
    mistaken: Callable[[], list[tuple[str, str, dict[str, np.ndarray]]]] = list
    ct: float | None = None
    axes: Sequence[tuple[str, int]] = ()
    suspects: Callable[[str], list[tuple[str, str, np.ndarray]]] = lambda leaf: []
    scaled: Callable[[], Sequence[dict[str, np.ndarray]]] = tuple

    @classmethod
    def of(cls, names: Sequence[str], diff: Sequence[np.ndarray], found: dict[str, Budget], mistaken: Any = list) -> "Context":
        """The context of a check of these arguments. The first axis of an array that is not a parameter is called the batch."""
        sizes = []
        for name, x in zip(names, diff):
            for axis, n in enumerate(np.shape(x)):
                batch = axis == 0 and not name.startswith("params") and np.ndim(x) > 1
                sizes.append(("the batch size" if batch else f"axis {axis} of {name}", n))
            if np.size(x) not in np.shape(x):
                sizes.append((f"the size of {name}", np.size(x)))
        sizes.sort(key=lambda s: not s[0].startswith("the batch"))
        return cls(sizes, found, dict(zip(names, diff)), mistaken)


def diagnose(leaf: str, h: np.ndarray, budget: Budget, context: Context = Context(), primal: bool = False) -> Diagnosis:  # noqa: B008
    """The kind of error in h, the gradient of this leaf, compared with its budget."""
    t, bound, finite = budget.truth, budget.bound, budget.finite
    where = _where(h, budget)
    wrong_value = "the value that fwd returns is not the reference's"
    if primal and budget.unlike(h).any():
        first = np.unravel_index(np.flatnonzero(budget.unlike(h))[0], h.shape)
        values = f"first at {_index(first)}: {h[first]:.6g} instead of {t[first]}"
        return Diagnosis("wrong_primal", f"{wrong_value} where the latter is infinite, {values}")
    if primal and not np.isfinite(h[finite]).all():
        return Diagnosis("wrong_primal", f"{wrong_value}: {where}")
    bad = ~np.isfinite(h) & finite
    if bad.any():
        first = np.unravel_index(np.flatnonzero(bad)[0], h.shape)
        return Diagnosis("not_finite", f"{_share(bad)} not finite, though the reference is; first at {_index(first)}")

    def close(a, slack=1.0, more: np.ndarray | float = 0.0):
        return a.shape == h.shape and bool((norms((h - a)[finite]) <= slack * bound + more).all())

    if not np.any(h) and not primal:
        return Diagnosis("zero", f"zero everywhere, but the reference has norm {budget.size[0]:.3g}")
    energy = float(np.vdot(t[finite], t[finite]))
    factor = float(np.vdot(t[finite], h[finite])) / energy if energy > 0 else 0.0
    told = t.size > 1 or _axis_words(factor, context)  # any number is a multiple of any other
    scaled = factor != 0 and told and close(factor * t, 1.5 * max(1.0, abs(factor)))
    if primal and scaled and _axis_words(factor, context):
        return Diagnosis("wrong_primal", f"{wrong_value}: {_scaled(factor, context)}")
    for kind, detail, other in context.suspects(leaf):
        if not scaled and close(other):
            return Diagnosis(kind, detail)
    if primal:
        return Diagnosis("wrong_primal", f"{wrong_value}: {where}")
    if close(-t):
        return Diagnosis("negated", "equals minus the reference")
    if scaled:
        return Diagnosis("scaled", _scaled(factor, context))
    if t.ndim == 2 and t.shape[0] == t.shape[1] and close(t.T):
        return Diagnosis("transposed", "equals the transpose of the reference")
    for name, other in context.found.items():
        if name != leaf and name.partition("[")[0] != "output" and close(other.truth, more=other.bound):
            return Diagnosis("permuted", f"equals the reference of another leaf, {name}")
    for kind, detail, gradients in context.mistaken():
        if leaf in gradients and close(gradients[leaf], 2.0):
            return Diagnosis(kind, detail)
    if _same_entries(h, t, bound):
        return Diagnosis("permuted", f"has the reference's entries in another order: {where}")
    crooked = not_linear(leaf, h, budget, context)
    if crooked:
        return Diagnosis("not_linear", crooked)
    if axis := _constant_along(h, budget):
        lost = f"off by the same number along axis {axis}: is the term that came by a mean or a sum over it missing?"
        return Diagnosis("unknown", f"{lost} {where}")
    entries = _off(h, budget)
    if 0 < entries.sum() < h.size and entries.mean() <= 0.75:
        return Diagnosis("partial", f"right except in {_share(entries)}{_mask(h, entries, leaf, context)}: {where}")
    if t.size == 1 and factor not in (0.0, 1.0):
        return Diagnosis("scaled", _scaled(factor, context))
    return Diagnosis("unknown", where + _factors(h, budget))


def _constant_along(h: np.ndarray, budget: Budget) -> int:
    """The axis of at least 3 entries, counted from the last (-1), along which h errs by one number; 0 if there is none.

    An axis along which the reference is constant as well says nothing.
    """
    if not (budget.finite.all() and np.isfinite(h).all()):
        return 0

    def constant(a, axis):
        return (norms(a - a.mean(axis, keepdims=True)) <= 2 * budget.bound).all()

    off = h - budget.truth
    along = range(-1, -h.ndim - 1, -1)
    return next((a for a in along if h.shape[a] >= 3 and constant(off, a) and not constant(budget.truth, a)), 0)


def not_linear(leaf: str, h: np.ndarray, budget: Budget, context: Context) -> str:
    """What the rule does that a linear map of the cotangent cannot do, or ""."""
    found = [other[leaf] for other in context.scaled() if leaf in other]
    if len(found) != 2:
        return ""
    at_zero, at_many = (a[budget.finite] for a in found)
    h = h[budget.finite]
    if not np.isfinite(at_zero).all() or (norms(at_zero) > budget.bound).all():
        return f"at a cotangent of 0 it gives {_largest(at_zero)}, but a linear map gives 0: does a term lack ct_y?"
    if not (np.isfinite(h).all() and np.isfinite(at_many).all()):  # a power of two does not round, but may overflow
        return ""
    if not (norms(at_many - TIMES * h) > 1.5 * TIMES * budget.bound).all():
        return ""
    return f"{TIMES} times the cotangent gives {_largest(at_many)}, the cotangent itself {_largest(h)}: is it linear in ct_y?"


def _largest(x: np.ndarray) -> str:
    return f"{x.flat[np.argmax(np.abs(x))]:.3g} at its largest" if x.size else "nothing"


def _same_entries(h, t, bound) -> bool:
    order = norms(np.sort(h, axis=None) - np.sort(t, axis=None))
    return bool((order <= bound).all())


def _scaled(factor: float, context: Context) -> str:
    digits = 6 if abs(abs(factor) - 1) > 1e-4 else 10
    words = f"{'larger' if abs(factor) > 1 else 'smaller'} by {max(abs(factor), 1 / abs(factor)):.{digits}g}"
    words += ", and negated" if factor < 0 else ""
    if context.ct and np.isclose(factor * context.ct, 1, rtol=1e-3):
        return f"{words}: it is the gradient at a cotangent of 1, but ct_y was {context.ct:.6g}; is ct_y left out?"
    if _axis_words(factor, context):
        return f"{words}, {_axis_words(factor, context)}"
    for name, n in context.sizes:
        if n > 1 and np.isclose(abs(factor), n, rtol=1e-3):
            return f"{words}, {name}: a mean written as a sum?"
        if n > 1 and np.isclose(abs(factor), 1 / n, rtol=1e-3):
            return f"{words}, {name}: a sum written as a mean?"
    return words


def _axis_words(factor: float, context: Context) -> str:
    """The likely origin of a factor that equals the size of a mesh axis."""
    for name, n in context.axes:
        if np.isclose(abs(factor), n, rtol=1e-3):
            return f"{name}: summed twice? or a pmean of what was summed already, which changes nothing?"
        if np.isclose(abs(factor), 1 / n, rtol=1e-3):
            return f"{name}: averaged where a sum was meant?"
    return ""


def _mask(h, entries, leaf, context) -> str:
    """ " and zero elsewhere" if so, and what the inputs of the wrong entries have in common, if anything."""
    words = " and zero elsewhere" if not np.any(h[entries]) else ""
    x = context.inputs.get(leaf)
    if x is None or np.shape(x) != h.shape:
        return words
    x = np.asarray(x, np.float64)
    for name, mask in (("x > 0", x <= 0), ("x >= 0", x < 0), ("x < 0", x >= 0), ("x <= 0", x > 0), ("x != 0", x == 0)):
        if np.array_equal(mask, entries):
            return f"{words} (it is right where {name})"
    return words


def _off(h, budget) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return budget.finite & ~(np.abs(h - budget.truth) <= budget.bound[1])


def _factors(h, budget) -> str:
    """How many of the nonzero entries are wrong, and by which factors, if these are informative."""
    t, off = budget.truth, _off(h, budget)
    there = budget.finite & (np.abs(t) > budget.bound[1])
    both = off & there
    if not both.any():
        return "; each of these should be zero"
    ratios = np.sort(h[both] / t[both])
    low, middle, high = ratios[[0, len(ratios) // 2, -1]]
    return f"; of {there.sum()} nonzero entries {both.sum()} are wrong, by factors {low:.3g} to {high:.3g}, mostly {middle:.3g}"


def _share(mask: np.ndarray) -> str:
    return f"{int(mask.sum())} of {mask.size} entries"


def _index(index) -> str:
    return "[" + ", ".join(str(int(i)) for i in index) + "]"


def _where(h, budget) -> str:
    t = budget.truth
    with np.errstate(invalid="ignore"):
        difference = np.where(budget.finite, np.abs(h - t), 0.0)
    difference = np.where(np.isnan(difference), np.inf, difference)
    if difference.size == 0 or difference.max() == 0:
        return "equal where both are finite"
    worst = np.unravel_index(np.argmax(difference), difference.shape)
    over = _off(h, budget)
    first = np.unravel_index(np.flatnonzero(over)[0], h.shape) if over.any() else worst
    digits = next((n for n in (6, 9, 13) if f"{h[worst]:.{n}g}" != f"{t[worst]:.{n}g}"), 17)
    values = f"{h[worst]:.{digits}g} instead of {t[worst]:.{digits}g}"
    return f"{_share(over)} wrong, first at {_index(first)}, worst at {_index(worst)}: {values}"
