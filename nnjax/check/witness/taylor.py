"""The Taylor remainder: R(e) = <ct, f(x + e v)> - <ct, f(x)> - e <Jᵀ ct, v> shrinks like e^2 if the gradient is right.

With a wrong one it shrinks like e. Only values of f are used, so that a wrong reference is caught as well. There is no step
to choose: at the smallest of three steps R is either as small as the rounding of f's value, or it has shrunk with an order
of at least ORDER since the largest. The points are generic, because at a kink the order is 1 whatever the gradient. A point
may still lie next to a kink, so a gradient is rejected only if it fails at all of POINTS points.

STEPS   2^-16, 2^-19, 2^-22: at the last, a relative error of 1e-6 in the gradient is above the rounding of the value, and
        the quadratic term of a function that bends on the scale of x is not.
FLOOR   1,000 roundings of the terms that are summed in <ct, f>, as f itself may be a long sum. Added to it is
        what the leaf's budget allows for the gradient itself, |h - t| |e v|.
"""

from collections.abc import Callable

import numpy as np

from ..report import Diagnosis, Row, Where
from ..subject import Flat, Leaves, Subject
from .oracle import Budget, eps_of, in_x64, norms, size_of

Rule = Callable[[list[np.ndarray]], list[np.ndarray]]  # of the inputs
STEPS = (2.0**-16, 2.0**-19, 2.0**-22)
ORDER, FLOOR, POINTS = 1.9, 1000.0, 3


def taylor_rows(
    subject: Subject, where: Where, reference: Flat, diff: Leaves, other: Leaves, cts: Leaves,
    hand: Rule, n: int, found: list[Budget], seed: int, leaves: list[str],
) -> list[Row]:  # fmt: skip
    """A row for each of the leaves, in float64: error is the remainder at the smallest step, bound the largest one allowed."""
    best: dict[str, Row] = {}
    for point in range(POINTS):
        rng = np.random.default_rng((seed, 3, point))
        near = _generic(diff, rng, lambda x: in_x64(reference, x, other, cts)[:n])
        if near is None:
            break
        rows = _at_point(subject, where, reference, *near, other, cts, hand(near[1])[n:], n, found, rng, leaves)
        for row in rows:
            if row.leaf not in best or not best[row.leaf].ok:
                best[row.leaf] = row
        if all(row.ok for row in best.values()):
            break
    if not best:
        return [
            where.row(leaf, error=np.inf, bound=np.inf, status="vacuous", witness="taylor", layer=subject.owner(leaf))
            for leaf in leaves
        ]
    return [best[leaf] for leaf in leaves]


def _generic(diff: Leaves, rng, value: Rule) -> tuple[bool, list[np.ndarray], list[np.ndarray]] | None:
    """Inputs off kinks and ties, moved by a share of their scale (of each entry, if that would leave the domain), and f there.

    The first result says whether it was their scale. An example that leaves the domain is a weight of 0 on NaN.
    """
    for additive in (True, False):
        near = []
        for x in diff:
            x = np.asarray(x, np.float64)
            finite = x[np.isfinite(x)]
            scale = float(np.sqrt(np.mean(np.square(finite)))) if np.any(finite) else 1.0
            scale = scale if np.isfinite(scale) else 1.0
            near.append(x * (1 + 0.05 * rng.standard_normal(x.shape)) + additive * 0.05 * scale * rng.standard_normal(x.shape))
        start = value(near)
        if all(np.isfinite(y).all() for y in start):
            return additive, near, start
    return None


def _at_point(subject, where, reference, additive, x, start, other, cts, h, n, found, rng, leaves) -> list[Row]:
    rows = []
    for i, leaf in enumerate(subject.spec.names):
        if leaf not in leaves:
            continue
        scale = max(size_of(x[i]), 1e-30) if additive else np.where(np.isfinite(x[i]), x[i], 0.0)
        v = scale * rng.standard_normal(np.shape(x[i]))
        slope = float(np.vdot(h[i], v))
        remainders, floors = [], []
        for step in STEPS:
            moved = [*x]
            moved[i] = x[i] + step * v
            # The actual step after rounding, as x + e v is not exact. From infinity or NaN there is none.
            went = np.where(np.isfinite(x[i]), moved[i] - np.where(np.isfinite(x[i]), x[i], 0.0), 0.0)
            taken = float(np.vdot(h[i], went)) if np.isfinite(slope) else slope
            values = in_x64(reference, moved, other, cts)[:n]
            change = sum(float(np.vdot(c.astype(np.float64), y - y0)) for c, y, y0 in zip(cts, values, start))
            terms = sum(float(np.abs(c.astype(np.float64) * y).sum()) for c, y in zip(cts, values))
            remainders.append(abs(change - taken))
            own = float(found[n + i].bound[0]) * float(norms(went)[0])
            floors.append(FLOOR * eps_of(np.float64) * (terms + abs(taken)) + (own if np.isfinite(own) else 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            order = np.log2(np.divide(remainders[0], remainders[-1])) / np.log2(STEPS[0] / STEPS[-1])
        allowed = max(floors[-1], remainders[0] * (STEPS[-1] / STEPS[0]) ** ORDER)
        ok = bool(remainders[-1] <= allowed)
        wrong = None
        if not ok:
            detail = f"the remainder shrinks with order {order:.2f} instead of 2: this is not the derivative of the value"
            wrong = Diagnosis("unknown", detail)
        status = "ok" if ok else "failed"
        rows.append(where.row(leaf, error=remainders[-1], bound=allowed, status=status, diagnosis=wrong, witness="taylor",
                              layer=subject.owner(leaf)))  # fmt: skip
    return rows
