"""What the gradients would be under common mistakes, to name a wrong gradient that equals one of them."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ..running.cells import reference_of
from ..subject import Leaves, Subject
from ..witness.adjoint import push_of
from ..witness.oracle import in_x64, on_host


def mistakes(
    subject: Subject, point: tuple[Leaves, Leaves], other: Leaves, names: Sequence[str]
) -> list[tuple[str, str, dict[str, Any]]]:
    """(kind, detail, {leaf: gradient}) for each mistake; point: (diff, cts); names: of the outputs, then of the leaves."""
    diff, cts = map(on_host, point)
    found = []

    def mistake(kind, detail, diff, cts):
        found.append((kind, detail, dict(zip(names, in_x64(reference_of(subject), diff, other, cts)))))

    for i, (name, x) in enumerate(zip(subject.spec.names, diff)):
        if x.ndim == 2 and x.shape[0] == x.shape[1]:
            swapped = [y.T if i == j else y for j, y in enumerate(diff)]
            mistake("transposed", f"equals the reference with {name} instead of its transpose", swapped, cts)
        if len(cts) == 1 and x.shape == cts[0].shape:
            words = f"equals J ct, with the Jacobian J of {name} itself instead of its transpose"
            tangents = [cts[0] if i == j else np.zeros_like(y) for j, y in enumerate(diff)]
            with suppress(Exception):  # no forward mode
                found.append(("transposed", words, {name: in_x64(push_of(subject), diff, other, tangents)[0]}))
    for i in range(len(cts) if len(cts) > 1 else 0):
        without = [np.zeros_like(c) if i == j else c for j, c in enumerate(cts)]
        mistake("partial", f"equals the reference without the cotangent of output[{i}]: is it left out?", diff, without)
    return found
