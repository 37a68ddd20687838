"""What was asked for but not compared: a check reports all of it."""

from collections.abc import Sequence
from typing import Any

from .options import ASKED, PLAIN, WIDE, Options, precisions
from .report import Row
from .running.cells import Place
from .running.transforms import SECOND_ORDER
from .subject import Subject
from .witness.oracle import eps_of

NOT_RUN = "in which the definition does not run"


def refused(error: Exception) -> bool:
    """Whether the check itself raised this, because the input cannot be checked. Otherwise the code under test raised it."""
    return str(error).startswith("check:")


def words(error: Exception) -> str:
    """The first line of an error, with its type unless it is a TypeError or ValueError."""
    first = next(iter(str(error).splitlines()), "")
    kind = "" if first and isinstance(error, (TypeError, ValueError)) else type(error).__name__
    return ": ".join(part for part in (kind, first) if part)


class LeftOut:
    """Where a definition does not run, so that its rule cannot be compared with it; filled by several threads."""

    def __init__(self):
        self.dtypes: dict[str, str] = {}  # "" if the dtype was not named
        self.transforms: set[tuple[str, str]] = set()

    def dtype(self, case: str, place: Place, opts: Options, error: Exception) -> str:
        """Leave a dtype out, and return a note on it; "" if that is an omission, as the dtype was named or is wide."""
        name = place.dtype.name
        if opts.named or name in WIDE:
            self.dtypes[name] = f"{case}: {name}, {NOT_RUN}: {words(error)}"
            return ""
        self.dtypes[name] = ""
        return f"{case}: not compared in {name}, in which it does not run: {words(error)}"

    def transform(self, case: str, dtype: Any, transform: str, error: Exception) -> str:
        """Leave a transform out, and return a note on it."""
        self.transforms.add((dtype.name, transform))
        how = "differentiated twice" if transform == SECOND_ORDER else f"under {transform}"
        return f"{case}: not compared {how} in {dtype.name}, as its definition cannot run there: {words(error)}"


def missing(subject: Subject, rows: Sequence[Row], opts: Options, notes: Sequence[str], left_out: LeftOut) -> tuple[str, ...]:
    """What was asked for but is in no row, leaves with only vacuous rows, and entries that no row compares.

    A rule that did not run, or returned no cotangents, has failed for every leaf.
    """
    seen = {(row.leaf, row.dtype, row.transform, row.precision, row.device) for row in rows}
    broken = {
        (row.dtype, row.transform, row.precision, row.device)
        for row in rows
        if row.witness == "reference" and not row.ok and row.bound == 0 and row.leaf not in subject.spec.names
    }
    found = [said for said in map(left_out.dtypes.get, opts.dtypes) if said]  # in this order, whichever thread ends first
    for d in (d for d in opts.dtypes if d not in left_out.dtypes):
        for device in opts.devices:
            for p in precisions(device, d):
                asked = [t for t in opts.transforms_in(d) if (d, t) not in left_out.transforms]
                keys = [(leaf, d, t, p, device.device_kind) for leaf in subject.spec.names for t in asked]
                found += [f"{subject.case}: {' '.join(key)}" for key in keys if key not in seen and key[1:] not in broken]
    if "float64" in opts.dtypes and "float64" not in left_out.dtypes and not broken:
        for witness in opts.witnesses:
            if witness in ASKED or (witness == PLAIN and (subject.plain is None or not opts.of_plain("float64"))):
                continue
            held = {row.leaf for row in rows if row.witness == witness}
            if not any(witness in note for note in notes):
                found += [f"{subject.case}: {leaf}, by {witness}" for leaf in subject.spec.names if leaf not in held]
    for witness in (w for w in opts.witnesses if w in ASKED and not broken):
        if not any(row.witness == witness for row in rows):
            found.append(f"{subject.case}: any leaf, by {witness}")
    rows = [row for row in rows if row.witness == "reference"]
    if not rows and not found:
        found.append(f"{subject.case}: any leaf, as its definition runs under none of the transforms")
    return (*found, *_proves_nothing(subject.case, rows, opts))


def _proves_nothing(case: str, rows: Sequence[Row], opts: Options) -> list[str]:
    """A sentence for each leaf whose rows prove nothing or leave out entries."""
    rows = [row for row in rows if row.transform != SECOND_ORDER] or list(rows)
    widest = min(opts.dtypes, key=eps_of)
    found = []
    for leaf in dict.fromkeys(row.leaf for row in rows):
        own = [row for row in rows if row.leaf == leaf]
        if any(row.status == "failed" for row in own):
            continue
        proving = [row for row in own if row.status == "ok" or (row.status == "zero" and row.dtype == widest)]
        left = min(row.skipped for row in proving or own)
        if left:
            found.append(
                f"{case}: {leaf} in {left} of {own[0].entries} entries, where the reference is not finite and proves "
                "nothing; check it at less extreme inputs, or in a wider dtype"
            )
        elif not proving:
            found.append(
                f"{case}: {leaf}, as every bound is as large as the leaf and proves nothing; check it at less extreme "
                "inputs, or in a wider dtype"
            )
    return found
