"""What a check found: one row for each leaf, dtype, transform and device, and a verdict that lists all omissions."""

from collections.abc import Iterable
from math import floor, inf, log10
from typing import Any, NamedTuple

KINDS = (
    "transposed", "negated", "scaled", "zero", "permuted", "partial", "not_finite",
    "wrong_shape", "wrong_dtype", "wrong_primal", "not_linear", "not_repeatable", "batch_dependent", "unknown",
)  # fmt: skip

ELSEWHERE = "not at your inputs"  # the note of a row that a search found at other inputs starts with this


class Diagnosis(NamedTuple):
    """Describes a wrong gradient: `kind` is one of KINDS, `detail` is a sentence. See `nnjax.check_pair`."""

    kind: str
    detail: str


class Row(NamedTuple):
    """One comparison. error and bound are in the norm with the largest error / bound.

    status: "ok"; "zero" (right, and zero up to rounding); "vacuous" (within a bound so wide that it proves nothing);
    "failed". witness: what it was compared with. layer: the layer inside a composition that owns the leaf. skipped: how many
    entries were not compared, as the reference is not finite there. relative: for a failed gradient, the error over the size
    of the truth. See `nnjax.check_pair`.
    """

    case: str
    leaf: str
    dtype: str
    transform: str
    device: str
    error: float
    bound: float
    ok: bool
    diagnosis: Diagnosis | None = None
    status: str = "ok"
    witness: str = "reference"
    layer: str = ""
    precision: str = ""
    note: str = ""
    skipped: int = 0
    entries: int = 0
    relative: float = 0.0

    def __str__(self) -> str:
        where = f"{self.case}: {self.leaf}" + (f" of {self.layer}" if self.layer else "")
        text = f"{where} [{self.dtype} {self.transform} {self.device}, {self.witness}] "
        text += f"error {self.error:.3g}, bound {self.bound:.3g}: {self.status}"
        if self.skipped:
            text += f", {self.skipped} of {self.entries} entries not compared, as the reference is not finite there"
        if self.diagnosis is not None:
            text += f"\n    {self.diagnosis.kind}: {self.diagnosis.detail}"
        return text + (f"\n    note: {self.note}" if self.note else "")


class Where(NamedTuple):
    """What the rows of one run have in common: what is compared, and in which program."""

    case: str
    dtype: str
    transform: str
    device: str
    precision: str = ""

    def row(
        self, leaf: str, *, error: float, bound: float, status: str, diagnosis: Diagnosis | None = None,
        witness: str = "reference", layer: str = "", note: str = "", skipped: int = 0, entries: int = 0,
        relative: float = 0.0,
    ) -> Row:  # fmt: skip
        """Make the row of one leaf, as every row of a check is made."""
        return Row(
            leaf=leaf, error=error, bound=bound, ok=status != "failed", diagnosis=diagnosis, status=status, witness=witness,
            layer=layer, note=note, skipped=skipped, entries=entries, relative=relative, **self._asdict(),
        )  # fmt: skip


class Report(NamedTuple):
    """The rows of a check, and `missing`: what was asked for but not compared. `ok` needs rows, all right, and none missing.

    See `check_layer`.
    """

    rows: tuple[Row, ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[Row, ...]:
        """The rows that are not ok."""
        return tuple(row for row in self.rows if not row.ok)

    @property
    def ok(self) -> bool:
        """True if something was compared, everything asked for was, and every row is within its bound."""
        return bool(self.rows) and not self.missing and all(row.ok for row in self.rows)

    @property
    def finding(self) -> str:
        """The fault in one line, from the most informative of the gravest failed rows; "" if there is none."""
        if not self.failures:
            return ""
        order = ("float64", "float32")

        def telling(row):
            known = row.diagnosis is not None and row.diagnosis.kind != "unknown"
            size = -floor(log10(row.error)) if 0 < row.error < inf else -400  # the gravest, then the widest
            again = row.transform == "second"
            return (
                again,
                not known,
                row.witness != "reference",
                size,
                order.index(row.dtype) if row.dtype in order else len(order),
            )

        first = min(self.failures, key=telling)
        said = "wrong" if first.diagnosis is None else f"{first.diagnosis.kind}: {first.diagnosis.detail}"
        places = {(row.dtype, row.transform) for row in self.rows if row.leaf == first.leaf}
        bad = {(row.dtype, row.transform) for row in self.failures if row.leaf == first.leaf}
        only = f", only in {' '.join(next(iter(bad)))}" if len(bad) == 1 < len(places) else ""
        only = f", {first.note}" if first.note.startswith(ELSEWHERE) else only
        return f"{first.case}: {first.leaf}" + (f" of {first.layer}" if first.layer else "") + f" is {said}{only}"

    def raise_if_failed(self) -> "Report":
        """Raise AssertionError with the whole report unless `ok`; otherwise return the report."""
        if not self.ok:
            raise AssertionError(str(self))
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, strings and numbers, ready for JSON."""
        rows = [{**row._asdict(), "diagnosis": row.diagnosis._asdict() if row.diagnosis else None} for row in self.rows]
        return {"ok": self.ok, "missing": list(self.missing), "notes": list(self.notes), "rows": rows}

    def __str__(self) -> str:
        words = {"zero": "rightly zero", "vacuous": "proving nothing", "failed": "failed"}
        counted = {said: sum(row.status == status for row in self.rows) for status, said in words.items()}
        extra = "".join(f", {n} {said}" for said, n in counted.items() if n)
        finding = f"{self.finding} ({len(self.rows)} comparisons{extra})" if self.failures else ""
        lines = [f"{'ok' if self.ok else 'FAILED'}: {finding or f'{len(self.rows)} comparisons{extra}'}"]
        if not self.rows:
            lines.append("nothing was compared")
        lines += [f"not compared: {what}" for what in self.missing]
        lines += [f"note: {note}" for note in self.notes]
        alike = _alike(self.failures)
        lines += [f"{rows[0]}{_likewise(rows[1:])}" for rows in alike[:20]]
        if len(alike) > 20:
            lines.append(f"... and {sum(map(len, alike[20:]))} more failures")
        return "\n".join(lines)


def output_names(n: int) -> list[str]:
    """The names of a function's n outputs in a report."""
    return ["output"] if n == 1 else [f"output[{i}]" for i in range(n)]


def _alike(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows grouped by leaf and finding: a fault shows in most dtypes and transforms, but is reported once."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault((row.case, row.leaf, row.layer, row.witness, row.diagnosis, row.note), []).append(row)
    return list(found.values())


def _likewise(rows: Iterable[Row]) -> str:
    """Where else the fault shows: the transforms of each dtype, device and precision."""
    transforms: dict[tuple[Any, ...], list[str]] = {}
    for row in rows:
        transforms.setdefault((row.dtype, row.device, row.precision), []).append(row.transform)
    several = len({place[1:] for place in transforms}) > 1
    where = [f"{' '.join(filter(None, place if several else place[:1]))} {' '.join(t)}" for place, t in transforms.items()]
    return f"\n    likewise: {', '.join(where)}" if where else ""


def merged(reports: Iterable[Report]) -> Report:
    """One report of several.

    >>> report = nnjax.check_transpose(lambda x: x[::-1], lambda y: y[::-1], jnp.ones(3), dtypes=["float32"])
    >>> len(nnjax.check.merged([report, report]).rows) == 2 * len(report.rows)
    True
    """
    reports = list(reports)
    return Report(
        tuple(row for r in reports for row in r.rows),
        tuple(m for r in reports for m in r.missing),
        tuple(dict.fromkeys(n for r in reports for n in r.notes)),
    )
