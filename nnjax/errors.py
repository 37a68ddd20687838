"""The checks of arguments that every layer makes on entry, and their common wording.

Each message names the function that raises, what was expected, what came, and the remedy.
"""

import difflib
import math
import numbers
import operator
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

MOST = 2**31 - 1  # the largest size that an int32 index can reach


def describe(x: Any) -> str:
    """`float32 (3, 4)` for an array, the name of the type for anything else."""
    if hasattr(x, "shape") and hasattr(x, "dtype") and not isinstance(x, type):
        return f"{x.dtype} {tuple(x.shape)}"
    return type(x).__name__


def is_array(x: Any) -> bool:
    """Whether x is an array of JAX, of numbers in NumPy, or of another kind that JAX accepts."""
    if isinstance(x, (np.ndarray, np.generic)):
        return x.dtype.kind not in "OSUMm"
    return isinstance(x, jax.Array) or (hasattr(x, "__jax_array__") and hasattr(x, "dtype"))


def expect_array(who: str, what: str, x: Any) -> None:
    """Raise TypeError unless x is an array."""
    if not is_array(x):
        raise TypeError(f"{who}: {what} must be an array, got {describe(x)}; convert it with jnp.asarray.")


def expect_arrays(who: str, what: str, tree: Any, remedy: str = "convert it with jnp.asarray") -> None:
    """Raise TypeError unless every leaf of the tree is an array of numbers or keys; an empty tree passes."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not is_array(leaf):
            where = jax.tree_util.keystr(path)
            raise TypeError(f"{who}: {what}{where} must be an array of numbers, got {describe(leaf)}; {remedy}.")


def expect_callable(who: str, what: str, f: Any, remedy: str) -> None:
    """Raise TypeError unless f can be called. A Layer cannot."""
    if not callable(f):
        came = repr(f) if isinstance(f, (str, int, float)) else describe(f)
        raise TypeError(f"{who}: {what} must be a function, got {came}; {remedy}.")


def expect_init(who: str, init: Any) -> None:
    """Raise TypeError unless init is a function like those of jax.nn.initializers."""
    expect_callable(who, "init", init, "pass init(key, shape, dtype), such as jax.nn.initializers.normal(0.02)")


def expect_float(who: str, what: str, x: Any) -> None:
    """Raise TypeError unless x is an array of real floating point numbers."""
    expect_array(who, what, x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{who}: {what} must be real floating point, got {describe(x)}; convert it with {what}.astype(jnp.float32)."
        )


def expect_shape(who: str, what: str, x: Any, shape: tuple[int, ...]) -> None:
    """Raise unless x is an array of exactly this shape."""
    expect_array(who, what, x)
    if tuple(x.shape) != tuple(shape):
        raise ValueError(f"{who}: {what} must have shape {tuple(shape)}, got {describe(x)}; reshape it or pass another.")


def expect_same_dtype(who: str, x_name: str, x: Any, y_name: str, y: Any) -> None:
    """Raise TypeError unless x and y have the same dtype: a cotangent has the dtype of its primal, so neither is converted."""
    expect_array(who, x_name, x)
    expect_array(who, y_name, y)
    if x.dtype != y.dtype:
        raise TypeError(
            f"{who}: {x_name} and {y_name} must have the same dtype, got {x.dtype} and {y.dtype}; "
            f"convert one of them, as in {x_name}.astype({y_name}.dtype)."
        )


def expect_params(who: str, params: Any, kind: type) -> None:
    """Raise TypeError unless params is the NamedTuple `kind`, or () if `kind` is tuple."""
    if kind is tuple:
        if not isinstance(params, tuple) or params:
            raise TypeError(f"{who}: params must be (), as it has no parameters, got {describe(params)}; pass ().")
    elif not isinstance(params, kind):
        fields = ", ".join(getattr(kind, "_fields", ()))
        first = "params come before x; " if is_array(params) else ""
        raise TypeError(
            f"{who}: params must be {kind.__name__}({fields}), got {describe(params)}; {first}make them with layer.init(key)."
        )


def expect_key(who: str, key: Any) -> None:
    """Raise TypeError unless key is a single key of jax.random, typed or of the older uint32 kind."""
    typed = is_array(key) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if typed and key.shape:
        raise TypeError(f"{who}: key must be a single key of jax.random, got {describe(key)}; pass one, such as key[0].")
    if not typed and not (is_array(key) and key.dtype == jnp.uint32 and key.shape == (2,)):
        seed = int(key) if isinstance(key, (int, np.integer)) else 0
        raise TypeError(f"{who}: key must be a key of jax.random, got {describe(key)}; pass jax.random.key({seed}).")


def whole_number(n: Any) -> int | None:
    """n as a Python int if it is a whole number of Python, NumPy or JAX, else None. A bool does not count.

    A NumPy scalar has a dtype, which could widen the arrays that it is combined with.
    """
    try:
        return None if isinstance(n, bool) else operator.index(n)
    except TypeError:
        return None


def real_number(x: Any) -> float | None:
    """x as a Python float if it is a real number of Python, NumPy or JAX, else None. A bool does not count."""
    dtype = getattr(x, "dtype", None)
    if isinstance(x, bool) or (dtype is None and not isinstance(x, numbers.Real)) or getattr(x, "shape", ()) != ():
        return None
    try:
        real = dtype is None or jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
        return float(x) if real else None
    except (TypeError, OverflowError):  # the value of a traced number is not known yet
        return None


def expect_positive(who: str, **sizes: Any) -> tuple[int, ...]:
    """The sizes as Python ints. Raise ValueError unless every one is a whole number of at least 1."""
    found = tuple(map(whole_number, sizes.values()))
    for name, n in zip(sizes, found):
        if n is not None and n > MOST:
            raise ValueError(f"{who}: {name} must be at most {MOST}, got {n}; no array can be longer.")
        if n is None or n < 1:
            raise ValueError(f"{who}: {name} must be a positive int, got {sizes[name]!r}; pass 1 or more.")
    return tuple(n for n in found if n is not None)


def expect_not_negative(who: str, **amounts: Any) -> tuple[float, ...]:
    """The amounts as Python floats. Raise ValueError unless every one is finite and at least 0."""
    found = tuple(map(real_number, amounts.values()))
    for name, x in zip(amounts, found):
        if x is None or not 0 <= x < math.inf:
            raise ValueError(f"{who}: {name} must be at least 0, got {amounts[name]!r}; pass a number such as 0.01.")
    return tuple(x for x in found if x is not None)


def expect_flag(who: str, **flags: Any) -> None:
    """Raise TypeError unless every one is True or False; 1 and 0 are accepted too."""
    for name, flag in flags.items():
        if not isinstance(flag, (bool, np.bool_)) and not (isinstance(flag, int) and flag in (0, 1)):
            came = repr(flag) if isinstance(flag, (str, int, float)) else describe(flag)
            raise TypeError(f"{who}: {name} must be True or False, got {came}; pass one of them.")


def expect_sizes(who: str, name: str, sizes: Any, example: str) -> tuple[int, ...]:
    """The sizes in a list, tuple or vector, as Python ints. Raise ValueError unless they are whole numbers of at least 1."""
    if not isinstance(sizes, (tuple, list)) and not (is_array(sizes) and sizes.ndim == 1):
        raise ValueError(f"{who}: {name} must be a list of positive ints, got {describe(sizes)}; pass e.g. {example}.")
    return expect_positive(who, **{f"{name}[{i}]": n for i, n in enumerate(sizes)})


def expect_folder(file: Path | None) -> None:
    """Raise ValueError, before any work is done, if the folder of a file to be written does not exist."""
    if file is not None and not file.parent.is_dir():
        raise ValueError(f"cannot write {file}: the folder {file.parent} does not exist; make it first, or name another file.")


def unknown_name(what: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for an unknown name; it suggests the nearest known one."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "pick one of these."
    listed = ("; " if any("," in k for k in known) else ", ").join(known)
    return ValueError(f"unknown {what} {name!r}: known are {listed}; {hint}")


def expect_per_axis(who: str, name: str, value: Any, axes: int | None = None) -> tuple[int, ...]:
    """One positive int for each axis: a single number is repeated for all `axes`, or stands for one axis if `axes` is None.

    Raises ValueError for anything else.
    """
    several = isinstance(value, (tuple, list)) or (is_array(value) and value.ndim == 1)
    sizes = tuple(map(whole_number, value if several else (value,) * (axes or 1)))
    found = tuple(n for n in sizes if n is not None and 0 < n <= MOST)
    if len(found) < len(sizes) or len(sizes) not in ((1, 2, 3) if axes is None else (axes,)):
        wanted = "a positive int, or a tuple of one, two or three" if axes is None else f"a positive int, or a tuple of {axes}"
        raise ValueError(f"{who}: {name} must be {wanted}, got {value!r}; pass e.g. {'(2, 2)' if axes != 1 else '2'}.")
    return found
