"""Two more questions besides right numbers: the same bits when a rule runs twice, and the same row in any batch.

The second seldom holds on any device: products of other sizes are summed in another order. Those who serve models want to
know.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..options import ASKED
from ..report import Diagnosis, Row, Where
from ..subject import Leaves, Subject, sorted_outputs

REPEAT, BATCH = ASKED
MOST = 6  # arguments that are tried for a batch axis, at most


def repeat_rows(subject: Subject, where: Where, names: Sequence[str], run: Callable[..., Any], diff, other, cts) -> list[Row]:
    """A row for each output and leaf: equal bits in two runs of one program."""
    first, second = ([np.asarray(a) for a in run([(diff, cts)], other)[0]] for _ in range(2))
    said = "two runs of one program give different bits: is the order of a sum random, or are random numbers drawn?"
    return [_row(where, name, a, b, REPEAT, "not_repeatable", said) for name, a, b in zip(names, first, second)]


def batch_rows(
    subject: Subject, where: Where, names: Sequence[str], run: Callable[..., Any], diff: Leaves, other: Leaves, cts: Leaves,
    notes: list[str],
) -> list[Row]:  # fmt: skip
    """A row for each output and each leaf that has a batch: equal bits for its rows alone and within the batch."""
    arrays = [*diff, *other]
    n = next((c.shape[0] for c in cts if np.ndim(c)), 0)
    members = _batched(subject, diff, other, cts, n)
    if not members:
        notes.append(f"{subject.case}: no {BATCH} row, as its arguments have no batch of at least two")
        return []
    whole = [np.asarray(a) for a in run([(diff, cts)], other)[0]]
    kept = [*range(len(cts)), *(len(cts) + i for i in members if i < len(diff))]
    rows: dict[str, Row] = {}
    for part in (slice(0, 1), slice(n - 1, n), slice(0, max(n // 2, 1))):
        some = [a[part] if i in members else a for i, a in enumerate(arrays)]
        alone = [np.asarray(a) for a in run([(some[: len(diff)], [c[part] for c in cts])], some[len(diff) :])[0]]
        size = len(range(n)[part])
        said = f"row {part.start} has different bits in a batch of {size} and in one of {n}"
        for i in kept:
            row = _row(where, names[i], alone[i], whole[i][part], BATCH, "batch_dependent", said)
            if names[i] not in rows or rows[names[i]].ok:
                rows[names[i]] = row
    return list(rows.values())


def _batched(subject: Subject, diff: Leaves, other: Leaves, cts: Leaves, n: int) -> tuple[int, ...]:
    """Which arrays have a batch along their first axis: the largest set for which two rows give those rows of the output."""
    arrays = [*diff, *other]

    @jax.jit
    def value(diff, other):
        args, kwargs = subject.spec.merge(diff, other)
        return sorted_outputs(subject.definition(*args, **kwargs))[0]

    if n < 2 or any(np.ndim(c) == 0 or c.shape[0] != n for c in cts):
        return ()
    whole = [np.asarray(y, np.float64) for y in value(diff, other)]
    for members in _subsets([i for i, a in enumerate(arrays) if np.ndim(a) and a.shape[0] == n][:MOST]):
        some = [a[:1] if i in members else a for i, a in enumerate(arrays)]
        try:
            found = [np.asarray(y, np.float64) for y in value(some[: len(diff)], some[len(diff) :])]
        except Exception:  # these arrays do not fit together
            continue
        if all(y.shape == w[:1].shape and _near(y, w[:1], cts[0].dtype) for y, w in zip(found, whole)):
            return members
    return ()


def _near(a: np.ndarray, b: np.ndarray, dtype: Any) -> bool:
    loose = 64 * float(jnp.finfo(dtype).eps)
    return bool(np.allclose(a, b, rtol=loose, atol=loose * float(np.abs(b).max(initial=0.0)), equal_nan=True))


def _subsets(members: Sequence[int]) -> Iterator[tuple[int, ...]]:
    for size in range(len(members), 0, -1):
        yield from itertools.combinations(members, size)


def _row(where: Where, leaf: str, a: np.ndarray, b: np.ndarray, witness: str, kind: str, said: str) -> Row:
    same = a.dtype == b.dtype and a.tobytes() == b.tobytes()
    with np.errstate(invalid="ignore"):
        apart = np.nan_to_num(np.abs(a.astype(np.float64) - b.astype(np.float64)), nan=np.inf)
    wrong = (
        None if same else Diagnosis(kind, f"{said}; {int((apart > 0).sum())} of {a.size} entries, by {apart.max():.3g} at most")
    )
    return where.row(leaf, error=0.0 if same else float(apart.max()), bound=0.0, status="ok" if same else "failed",
                     diagnosis=wrong, witness=witness)  # fmt: skip
