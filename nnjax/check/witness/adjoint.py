"""The adjoint identity: <ct, J v> = <Jᵀ ct, v>, with J v by forward mode. It needs no reverse mode to be right."""

import jax
import numpy as np

from ..omissions import words
from ..report import Diagnosis, Row, Where
from ..running.threads import once
from ..subject import Flat, Leaves, Subject, sorted_outputs
from .oracle import ULPS, Budget, eps_of, in_x64, norms
from .rounding import random_like


def push_of(subject: Subject) -> Flat:
    """push(diff, other, tangents) -> J v of the definition, by forward mode; compiled once. TypeError if there is none."""

    def push(diff, other, tangents):
        def value(*diff):
            args, kwargs = subject.spec.merge(list(diff), other)
            return sorted_outputs(subject.definition(*args, **kwargs))[0]

        return jax.jvp(value, tuple(diff), tuple(tangents))[1]

    return once(subject.shared, "push", lambda: jax.jit(push))


def adjoint_rows(
    subject: Subject, where: Where, diff: Leaves, other: Leaves, cts: Leaves, h: list[np.ndarray], found: list[Budget],
    seed: int, notes: list[str],
) -> list[Row]:  # fmt: skip
    """A row for each leaf, in float64, for a random tangent v of only that leaf.

    The allowed difference follows from the leaf's budget by |<h - t, v>| <= |h - t| |v|, plus the rounding of J v.
    """

    push = push_of(subject)
    rng = np.random.default_rng((seed, 2))
    rows = []
    for i, (leaf, x) in enumerate(zip(subject.spec.names, diff)):
        tangents = [np.zeros(np.shape(y)) for y in diff]
        tangents[i] = random_like(rng, np.shape(x), np.float64)
        try:
            pushed = in_x64(push, diff, other, tangents)
        except Exception as error:
            notes.append(f"{subject.case}: the adjoint identity was not checked, as there is no forward mode: {words(error)}")
            return []
        # Extended precision where the machine has it, so that the sum itself is exact enough.
        left = float(sum(np.vdot(np.longdouble(c), np.longdouble(p)) for c, p in zip(cts, pushed)))
        right = float(np.vdot(np.longdouble(h[i]), np.longdouble(tangents[i])))
        budget = found[len(cts) + i]
        length = float(norms(tangents[i])[0])
        terms = sum(float(norms(c)[0] * norms(p)[0]) for c, p in zip(cts, pushed))
        bound = float(budget.bound[0]) * length + ULPS * eps_of(np.float64) * terms
        error = abs(left - right)
        if not np.isfinite(left):
            status = "vacuous"
        elif not error <= bound:
            status = "failed"
        else:
            status = "ok" if bound < float(budget.size[0]) * length or budget.zero else "vacuous"
            status = "zero" if budget.zero else ("ok" if np.size(x) == 0 else status)
        wrong = Diagnosis("unknown", f"<ct, J v> = {left:.6g} but <Jᵀ ct, v> = {right:.6g}") if status == "failed" else None
        rows.append(where.row(leaf, error=error, bound=bound, status=status, diagnosis=wrong, witness="adjoint",
                              layer=subject.owner(leaf)))  # fmt: skip
    return rows
