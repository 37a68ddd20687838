"""The few checks of arguments that every layer makes on entry, and the wording they share.

Each message names who refuses, what was expected, what came, and the remedy.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp


def describe(x: Any) -> str:
    """`float32 (3, 4)` for an array, the name of the type for anything else."""
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return f"{x.dtype} {tuple(x.shape)}"
    return type(x).__name__


def expect_float(who: str, what: str, x: Any) -> None:
    """Raise TypeError unless x is an array of real floating point numbers."""
    if not isinstance(x, jax.Array) and not hasattr(x, "dtype"):
        raise TypeError(f"{who}: {what} must be an array, got {describe(x)}; convert it with jnp.asarray.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{who}: {what} must be real floating point, got {describe(x)}; convert it with {what}.astype(jnp.float32)."
        )


def expect_shape(who: str, what: str, x: Any, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless x has exactly this shape."""
    if tuple(x.shape) != tuple(shape):
        raise ValueError(f"{who}: {what} must have shape {tuple(shape)}, got {describe(x)}; reshape it or pass another.")


def expect_same_dtype(who: str, x_name: str, x: Any, y_name: str, y: Any) -> None:
    """Raise TypeError unless x and y have one dtype: a cotangent has the dtype of its primal, so none is converted."""
    if x.dtype != y.dtype:
        raise TypeError(
            f"{who}: {x_name} and {y_name} must have one dtype, got {x.dtype} and {y.dtype}; "
            f"convert one of them, as in {x_name}.astype({y_name}.dtype)."
        )


def expect_params(who: str, params: Any, kind: type) -> None:
    """Raise TypeError unless params is the NamedTuple `kind`, or () where `kind` is tuple."""
    if kind is tuple:
        if params != ():
            raise TypeError(f"{who}: has no parameters and expects (), got {describe(params)}; pass ().")
    elif not isinstance(params, kind):
        fields = ", ".join(getattr(kind, "_fields", ()))
        raise TypeError(
            f"{who}: params must be {kind.__name__}({fields}), got {describe(params)}; make them with layer.init(key)."
        )


def expect_key(who: str, key: Any) -> None:
    """Raise TypeError unless key is a key of jax.random, typed or of the older uint32 kind."""
    typed = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not typed and not (hasattr(key, "dtype") and key.dtype == jnp.uint32 and key.shape[-1:] == (2,)):
        seed = key if isinstance(key, int) else 0
        raise TypeError(f"{who}: key must be a key of jax.random, got {describe(key)}; pass jax.random.key({seed}).")


def expect_positive(who: str, **sizes: Any) -> None:
    """Raise ValueError unless every size is an int of at least 1."""
    for name, n in sizes.items():
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"{who}: {name} must be a positive int, got {n!r}; pass 1 or more.")


def expect_folder(file: Path | None) -> None:
    """Raise ValueError, before any work is done, where the folder of a file to be written does not exist."""
    if file is not None and not file.parent.is_dir():
        raise ValueError(f"cannot write {file}: there is no folder {file.parent}; make it first, or name another file.")


def unknown_name(what: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that is not in a table, with the nearest one that is."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "pick one of these."
    listed = ("; " if any("," in k for k in known) else ", ").join(known)
    return ValueError(f"unknown {what} {name!r}: known are {listed}; {hint}")


def expect_per_axis(who: str, name: str, value: Any, axes: int | None = None) -> tuple[int, ...]:
    """One positive int for each axis: an int stands for all `axes` of them, or for one where `axes` is None.

    Raises ValueError for anything else.
    """
    sizes = (value,) * (axes or 1) if isinstance(value, int) else value
    wrong = not isinstance(sizes, (tuple, list)) or len(sizes) not in ((1, 2) if axes is None else (axes,))
    if wrong or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
        wanted = "a positive int, or a tuple of one or two" if axes is None else f"a positive int, or a tuple of {axes}"
        raise ValueError(f"{who}: {name} must be {wanted}, got {value!r}; pass e.g. {'(2, 2)' if axes != 1 else '2'}.")
    return tuple(sizes)
