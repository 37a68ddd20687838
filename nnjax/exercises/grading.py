"""A backward that someone wrote, held against the definition by `check_pair`, and what is wrong with it in words."""

import inspect
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..check import Report, check_pair
from ..errors import describe, unknown_name
from .exercise import Exercise
from .questions import EXERCISES

RIGHT, WRONG, EMPTY = "right", "not right yet", "not filled in yet"
LIGHT: dict[str, Any] = {"dtypes": ("float32", "float64"), "transforms": ("jit",), "witnesses": ()}
SAME = 1e-4  # of the size of a known mistake: rounding in float32 is far below, other mistakes are far above


class Grade(NamedTuple):
    """What `grade` found. said: a line for each cotangent, by its name (ct_x), or for the whole; report: of the check.
    See `grade`."""

    exercise: str
    status: str
    said: dict[str, str]
    report: Report | None = None

    @property
    def ok(self) -> bool:
        """Whether every cotangent is right."""
        return self.status == RIGHT

    def __str__(self) -> str:
        width = max(map(len, self.said), default=0)
        lines = [f"{self.exercise}: {self.status}", *(f"  {name:{width}}  {words}" for name, words in self.said.items())]
        if self.report is not None:
            lines += ["The check against jax.grad:", *(f"  {line}" for line in str(self.report).splitlines())]
        return "\n".join(lines)


def grade(name: str, bwd: Callable[..., Any]) -> Grade:
    """Check bwd(residuals, ct_y), the backward of an exercise, and name its mistakes where they are known.

    A cotangent that is still `...` is not filled in; the others are graded. Whatever bwd raises becomes words. Raises
    ValueError where no exercise has this name, TypeError where bwd is no function.

    >>> found = nnjax.exercises.grade("batch_norm", lambda residuals, ct_y: (..., ..., ct_y.mean(0)))
    >>> print(found.said["ct_beta"])
    a mean over the batch: beta was copied to every row, so it is a sum
    """
    exercise = _named(name)
    if not callable(bwd):
        raise TypeError(f"grade: bwd must be a function of (residuals, ct_y), got {describe(bwd)}; pass your function.")
    args = exercise.arguments()
    y, residuals = exercise.fwd(*args)
    ct_y = _cotangents(y)
    try:
        found = bwd(residuals, ct_y)
    except Exception as error:  # told to a learner, not raised
        if "ellipsis" in str(error).lower() or isinstance(error, NotImplementedError):
            return Grade(name, EMPTY, {})
        return Grade(name, WRONG, {"your function": _raised(error, bwd)})
    due = [n for n, arg in zip(exercise.names, args) if jnp.issubdtype(arg.dtype, jnp.floating)]
    given = dict(zip(exercise.names, found)) if isinstance(found, tuple) else {}
    blank = {n for n in due if given.get(n) is ...}
    if len(due) == 1 and getattr(found, "shape", None) == args[exercise.names.index(due[0])].shape:
        return Grade(name, WRONG, {"cotangents": f"bwd must return a tuple of 1; write return (ct_{due[0]},)"})
    for n, arg in zip(exercise.names, args):
        ct = given.get(n)
        if n in due and ct is not ... and ct is not None and not hasattr(ct, "shape"):
            came = f"a {type(ct).__name__} of {len(ct)}" if isinstance(ct, (tuple, list)) else describe(ct)
            return Grade(name, WRONG, {f"ct_{n}": f"it must be an array of shape {_shape(arg)}, got {came}"})
    if found is None or found is ... or blank == set(due):
        return Grade(name, EMPTY, {})
    report = check_pair(exercise.fwd, _without_blanks(bwd), *args, reference=exercise.forward, **LIGHT)
    report = report._replace(rows=tuple(row for row in report.rows if row.leaf not in blank))
    said = {f"ct_{n}": EMPTY if n in blank else RIGHT for n in due}
    known = exercise.mistakes(residuals, ct_y)
    for leaf in dict.fromkeys(row.leaf for row in report.failures):
        said[f"ct_{leaf}" if leaf in due else leaf] = _hint(leaf, given.get(leaf), known.get(leaf, {}), report)
    if not report.ok and not report.failures:
        said["the check"] = "; ".join(report.missing) or "nothing was compared"
    return Grade(name, RIGHT if report.ok and not blank else WRONG, said, report)


def show(name: str) -> None:
    """Print what is given: the forward, what it keeps, and the shapes of what your backward gets and returns.

    >>> nnjax.exercises.show("shares")  # doctest: +ELLIPSIS
    def shares(x):
    ...
    to return: ct_x (4, 5)
    """
    exercise = _named(name)
    args = exercise.arguments()
    y, residuals = exercise.fwd(*args)
    for function in (*exercise.helpers, exercise.forward, exercise.fwd):
        print(inspect.getsource(function))
    kept = ", ".join(f"{n} {_shape(r)}" for n, r in zip(exercise.kept, residuals))
    cotangents = [
        f"ct_{n} {_shape(a)}" if jnp.issubdtype(a.dtype, jnp.floating) else "None" for n, a in zip(exercise.names, args)
    ]
    print(f"residuals: {kept}")
    print(f"ct_y:      {jax.tree.map(_shape, y)}".replace("'", ""))
    print(f"to return: {', '.join(cotangents)}")


def _named(name: str) -> Exercise:
    if name not in EXERCISES:
        raise unknown_name("exercise", str(name), list(EXERCISES))
    return EXERCISES[name]


def _shape(x: Any) -> str:
    return str(tuple(x.shape))


def _cotangents(y: Any) -> Any:
    """Random cotangents like y, none of them small."""
    rng = np.random.default_rng(1)

    def like(v):
        signs = np.sign(rng.standard_normal(v.shape))
        return jnp.asarray(signs * rng.uniform(0.5, 1.5, v.shape), v.dtype)

    return jax.tree.map(like, y)


def _without_blanks(bwd: Callable[..., Any]) -> Callable[..., Any]:
    def filled(residuals, ct_y):
        found = bwd(residuals, ct_y)
        return tuple(None if ct is ... else ct for ct in found) if isinstance(found, tuple) else found

    return filled


def _hint(leaf: str, ct: Any, known: dict[str, Any], report: Report) -> str:
    """The mistake that gives this very cotangent, or else what the check sees in it."""
    for words, mistaken in known.items():
        if np.shape(ct) == np.shape(mistaken):
            off = np.linalg.norm(np.asarray(ct, np.float64) - np.asarray(mistaken, np.float64))
            if off <= SAME * np.linalg.norm(np.asarray(mistaken, np.float64)):
                return words
    seen = [row.diagnosis for row in report.failures if row.leaf == leaf and row.diagnosis is not None]
    told = next((d for d in seen if d.kind != "unknown"), seen[0] if seen else None)
    return "wrong" if told is None else f"{told.kind}: {told.detail}"


def _raised(error: Exception, bwd: Callable[..., Any]) -> str:
    """What was raised, and in which line of the function."""
    code = getattr(bwd, "__code__", None)
    first = (str(error).splitlines() or [""])[0]
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if code and f.filename == code.co_filename]
    where = f", in its line {lines[-1] - code.co_firstlineno + 1}" if lines and code else ""
    return f"raises {type(error).__name__}{where}: {first}"
