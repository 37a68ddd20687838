"""Rules that differ from autodiff of their body, or whose body has none: values decide who is right.

All is done in float64, on the body of the rule under test, at the arguments of a call. Nothing is concluded where the body does
not run there.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..calls import bound
from ..report import Diagnosis, Report, Row, Where
from ..subject import Leaves, Spec, sorted_outputs, split
from .oracle import norms, random_like
from .values import directions, slope, tied

APART = 1e-6  # of the largest entry: gradients in float64 that differ by more are two
APPROXIMATION = 64 * 2.0**-23  # of every entry: what one hardly sees in float32, as of a sum that stands for an integral
SETTLES = 1e-4  # of the slope: an error above proves nothing


class Question(NamedTuple):
    """F(x) = <ct, body(x)>, and its gradient as the rule has it."""

    spec: Spec
    diff: Leaves  # in float64
    other: Leaves
    cts: Leaves
    rule: Any
    body: Any

    def value(self) -> Any:
        """F, of a list of arrays in float64."""

        @jax.jit
        def run(diff, other, cts):
            return sum(jnp.vdot(c, y) for c, y in zip(cts, self._floats(self.body)(diff, other)))

        return lambda diff: float(run(list(diff), self.other, self.cts))

    def _floats(self, f):
        def call(diff, other):
            args, kwargs = self.spec.merge(diff, other)
            return sorted_outputs(f(*args, **kwargs))[0]

        return call

    def gradient(self, f: Any) -> list[np.ndarray]:
        """Of <ct, f(x)>, by the reverse mode that f has."""

        @jax.jit
        def run(diff, other, cts):
            return jax.vjp(lambda diff: self._floats(f)(diff, other), diff)[1](list(cts))[0]

        return [np.asarray(g) for g in run(list(self.diff), self.other, self.cts)]


def asked(rule: Any, body: Any, args: tuple[Any, ...], kwargs: dict[str, Any], seed: int) -> Question:
    """The question at these arguments."""
    (rule, body), args, kwargs, names = bound(rule, body, args, kwargs)
    spec, diff, other = split(args, kwargs, names)
    diff = [np.asarray(x).astype(np.float64) for x in diff]
    bare = Question(spec, diff, other, [], rule, body)
    shapes = jax.eval_shape(bare._floats(body), diff, other)
    rng = np.random.default_rng((seed, 2))
    return bare._replace(cts=[random_like(rng, s.shape, s.dtype) for s in shapes])


def only_at_kinks(question: Question) -> bool:
    """Whether F has a kink wherever the rule differs from autodiff of its body, and the rule lies between the slopes there.

    Entries that are equal are moved together too: what has no kink then has one slope. NaN is no slope.
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
        found = slope(f, question.diff, u)
        alone = sum(int((d != 0).sum()) for d in u) == 1
        if not found.allows(float(sum(np.vdot(g, d) for g, d in zip(ours, u)))) or (alone and not found.kink):
            return False
        kinks += found.kink
    return kinks > 0


def share_off(question: Question) -> float:
    """The largest difference of an entry of the gradient by the rule from that by autodiff of its body, relative to the latter.

    Entry by entry, so that a small one that is wrong is not lost beside large ones.
    """
    pairs = zip(question.gradient(question.rule), question.gradient(question.body))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = [np.where(g == t, 0.0, np.abs(g - t) / np.abs(t)) for g, t in pairs]
    return max((float(np.where(np.isnan(s), np.inf, s).max(initial=0.0)) for s in shares), default=0.0)


def by_values(question: Question, of: Any, where: Where, seed: int) -> Report:
    """A row for each leaf: its slope along random directions, by the reverse mode that `of` has, against that of the body's
    values; missing: what these do not settle."""
    f, ours = question.value(), question.gradient(of)
    rows: list[Row] = []
    missing: list[str] = []
    for i, (name, g) in enumerate(zip(question.spec.names, ours)):
        worst: Row | None = None
        for u in directions(question.diff, i, seed):
            with np.errstate(invalid="ignore"):
                own, terms = float(np.vdot(g, u[i])), float(np.abs(g * u[i]).sum())
            value, off = slope(f, question.diff, u).both
            limit = 16 * off + 1e-9 * terms
            scale = max(abs(value), min(terms, 100 * abs(value)))  # terms may cancel, or be those of a wrong rule
            if not limit <= SETTLES * scale:
                missing.append(f"{where.case}: {name}, which differences of values do not settle (their error is {off:.2g})")
                worst = None
                break
            ok = abs(own - value) <= limit
            said = f"by differences of values its slope along a direction is {value:.6g} ± {off:.1g}, by reverse mode {own:.6g}"
            wrong = None if ok else Diagnosis("scaled" if g.size == 1 else "unknown", said)
            row = where.row(name, error=abs(own - value), bound=limit, status="ok" if ok else "failed", diagnosis=wrong,
                            witness="values", note=said if ok else "", entries=g.size)  # fmt: skip
            worst = row if worst is None or row.error / row.bound > worst.error / worst.bound else worst
        if worst is not None:
            rows.append(worst)
    return Report(tuple(rows), tuple(missing))
