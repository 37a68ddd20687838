"""For rules that differ from autodiff of their body, or whose body has no autodiff: values decide which is right.

All is done in float64, on the body of the rule under test, at the arguments of a call; if the body does not run in
float64, in the precision of the arguments.
"""

from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from ..report import Diagnosis, Report, Row, Where, output_names
from ..subject import Leaves
from .oracle import eps_of, norms, size_of
from .question import Question, asked
from .values import directions, halves, in_groups, slope, tied

APART = 1e-6  # of the largest entry: gradients in float64 that differ by more are different
APPROXIMATION = 64 * 2.0**-23  # of every entry: hardly visible in float32, e.g. a sum that approximates an integral
SETTLES = 1e-4  # of the slope: a larger error proves nothing; in lower precision 2 eps^(1/4), e.g. 4 % in float32
BY_VALUES = "differences of values"
APPROXIMATE = "approximation:"  # the note of such a row starts with this
MOST = 400  # groups of entries of one leaf that are tested
FLAT = 1e-7  # of F over the size of x: an error below this distinguishes a slope from zero


def by_values(
    rule: Any, body: Any, args: tuple[Any, ...], kwargs: dict[str, Any], seed: int, name: str,
    of: Literal["rule", "body"] = "rule",
) -> Report:  # fmt: skip
    """Compare the gradient by a rule, or by autodiff of its body, with differences of the body's values; an empty report if
    there are none."""

    def answer(question: Question) -> Report:
        dtype = next(n for n in ("float64", "float32", "bfloat16", "float16") if eps_of(n) >= question.eps)
        where = Where(name, dtype, "jit", jax.devices()[0].device_kind)
        found = _along(question, getattr(question, of), where, seed)
        return found if of == "body" else found._replace(rows=(*found.rows, *_as_it_came(question, where)))

    return asked(answer, rule, body, args, kwargs, seed, Report(()))


def only_at_kinks(question: Question) -> bool:
    """Whether F has a kink wherever the rule differs from autodiff of its body, and the rule lies between the slopes there.

    Equal entries are also moved together: without a kink there is then one slope. NaN is not a slope.
    """
    ours, theirs = question.gradient(question.rule), question.gradient(question.body)
    largest = max((norms(t[np.isfinite(t)])[1] for t in theirs), default=0.0)
    with np.errstate(invalid="ignore"):
        off = [np.isfinite(t) & ~(np.abs(g - t) <= APART * largest) for g, t in zip(ours, theirs)]
    if any(not np.isfinite(g[m]).all() for g, m in zip(ours, off)):
        return False
    f = question.value()
    kinks = 0
    for u in tied(question.diff, off):
        found = slope(f, question.diff, u, question.eps)
        alone = sum(int((d != 0).sum()) for d in u) == 1
        if not found.allows(float(sum(np.vdot(g, d) for g, d in zip(ours, u)))) or (alone and not found.kink):
            return False
        kinks += found.kink
    return kinks > 0


def share_off(question: Question) -> float:
    """The largest relative difference of an entry of the rule's gradient from that of autodiff of its body.

    Entry by entry, so that large entries do not hide a small wrong one.
    """
    pairs = zip(question.gradient(question.rule), question.gradient(question.body))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = [np.where(g == t, 0.0, np.abs(g - t) / np.abs(t)) for g, t in pairs]
    return max((float(np.where(np.isnan(s), np.inf, s).max(initial=0.0)) for s in shares), default=0.0)


def _as_it_came(question: Question, where: Where) -> list[Row]:
    """Rows for what slopes do not show: the value of the rule under differentiation, in float64 and in the dtypes of the call,
    and its gradient in those dtypes, compared with its own in float64."""
    _, wide = question.pulled(question.rule)
    narrow = max(map(eps_of, question.dtypes))
    rows = []
    for dtypes, eps in ((None, question.eps), (question.dtypes, max(narrow, question.eps))):
        y, gradient = question.pulled(question.rule, dtypes)
        slack = max(APPROXIMATION, 8 * eps**0.5 if dtypes else 0.0)  # a body that iterates to convergence rounds differently
        name = "float64" if dtypes is None else np.dtype(max(question.dtypes, key=eps_of)).name
        here = where._replace(dtype=name)
        compared = [*zip(output_names(len(y)), y, question.outputs(question.body, dtypes), ["wrong_primal"] * len(y))]
        compared += zip(question.spec.names, gradient, wide, ["unknown"] * len(wide)) if dtypes else []
        for leaf, ours, theirs, kind in compared:
            known = np.isfinite(theirs)
            size = norms(theirs[known])[1]
            error = norms((ours - theirs)[known])[1] if np.isfinite(ours[known]).all() else np.inf
            bound = slack * size + 1e-30
            said = "the value under differentiation differs from that of the body" if kind == "wrong_primal" else (
                f"its gradient in {name} differs from that in float64")  # fmt: skip
            wrong = None if error <= bound else Diagnosis(kind, f"{said}: off by {error:.3g}, where the largest is {size:.3g}")
            status = "failed" if wrong else "ok"
            rows.append(here.row(leaf, error=float(error), bound=float(bound), status=status, diagnosis=wrong, witness="values",
                                 entries=ours.size))  # fmt: skip
    return rows


def _along(question: Question, of: Any, where: Where, seed: int) -> Report:
    """A row for each leaf: its slope along random directions, by the reverse mode of `of`, compared with that of the body's
    values; missing: what these do not settle.

    If only a few entries move, their slope may be lost in the rounding of F: it then proves nothing, and need not.
    """
    f, ours = question.value(), question.gradient(of)
    rows: list[Row] = []
    missing: list[str] = []
    for i, (name, g) in enumerate(zip(question.spec.names, ours)):
        if g.size == 0:
            continue
        flat = FLAT * abs(f(question.diff)) / (size_of(np.asarray(question.diff[i])) or 1.0)
        found = [_held(question, f, u, g, u[i], flat) for u in directions(question.diff, i, seed)]
        if not all(h.settled for h in found):
            off = max(h.off for h in found)
            missing.append(
                f"{where.case}: {name}, in {g.size} of {g.size} entries: {BY_VALUES} do not settle its slope (their "
                f"error is {off:.2g})"
            )
            continue
        smooth = [h for h in found if not h.kink]
        parts, left = _parted(question, f, i, g, flat, seed)
        kinks = any(h.kink for h in parts)
        if left and kinks:
            missing.append(f"{where.case}: {name}, in {left} of {g.size} entries beside kinks, which {BY_VALUES} do not settle")
            continue
        # If several kinks move at once, each has its own slopes, and both sides may be equal by chance.
        found = parts if kinks else smooth + parts or found
        worst = max(found, key=lambda h: h.error / h.limit if h.limit else float(h.error > 0))
        said = f"by {BY_VALUES} its slope along a direction is {worst.value:.6g} ± {worst.off:.1g}, by reverse mode "
        said += f"{worst.own:.6g}"
        if not worst.within and worst.allowed:
            said = f"{APPROXIMATE} by {BY_VALUES} off by {worst.error / worst.scale:.2g} of its slope"
        ok = worst.allowed
        kind = "not_finite" if not np.isfinite(worst.own) else "scaled" if g.size == 1 else "unknown"
        wrong = None if ok else Diagnosis(kind, said)
        row = where.row(name, error=worst.error, bound=worst.limit, status="ok" if ok else "failed", diagnosis=wrong,
                        witness="values", note=said if ok else "", entries=g.size)  # fmt: skip
        if not ok and question.stops and np.isfinite(worst.own):
            missing.append(f"{where.case}: {name}, as its body stops gradients, which values do not show: {said}")
        else:
            rows.append(row)
    return Report(tuple(rows), tuple(missing))


def _parted(question: Question, f: Any, i: int, g: np.ndarray, flat: float, seed: int) -> tuple[list["Held"], int]:
    """The slopes of groups of entries of the i-th leaf, and how many entries remain unsettled.

    A group with a kink, or with a wrong slope, is split until a single entry moves, as long as there are not too many groups.
    """
    groups, found, left = in_groups(question.diff, i, seed), [], 0
    for _ in range(MOST):
        if not groups:
            break
        u = groups.pop()
        held = _held(question, f, u, g, u[i], flat)
        if (held.kink or not held.allowed) and np.count_nonzero(u[i]) > 1:
            groups += halves(u)
        elif held.settled:
            found.append(held)
        else:
            left += int(np.count_nonzero(u[i]))
    return found, left + sum(int(np.count_nonzero(u[i])) for u in groups)


class Held(NamedTuple):
    """A slope by reverse mode and one from values, the error of the latter, and the allowed difference."""

    own: float
    value: float
    off: float
    limit: float
    scale: float
    settled: bool
    kink: bool

    @property
    def within(self) -> bool:
        """Whether they are equal within the error of the values."""
        return self.error <= self.limit

    @property
    def allowed(self) -> bool:
        """Whether they are equal, or so near that one of them may be an approximation."""
        return self.error <= max(self.limit, APPROXIMATION * self.scale)

    @property
    def error(self) -> float:
        """Their distance; infinite if the first is not finite."""
        return abs(self.own - self.value) if np.isfinite(self.own) else np.inf


def _held(question: Question, f: Any, u: Leaves, g: np.ndarray, along: np.ndarray, flat: float) -> Held:
    """flat: an error that still distinguishes a slope from zero."""
    with np.errstate(invalid="ignore"):
        own, terms = float(np.vdot(g, along)), float(np.nan_to_num(np.abs(g * along), nan=0.0, posinf=0.0).sum())
    found = slope(f, question.diff, u, question.eps)
    value, off = found.both
    if found.kink and found.allows(own):  # between the slopes of both sides, like any convention
        value = own
    limit = 16 * off + max(1e-9, 16 * question.eps) * terms
    scale = max(abs(value), min(terms, 100 * abs(value)))  # terms may cancel, or come from a wrong rule
    settled = limit <= max(SETTLES, 2 * question.eps**0.25) * scale or limit <= flat
    return Held(own, value, off, limit, scale, settled, found.kink)
