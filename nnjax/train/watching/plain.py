"""Convert values to what JSON can carry: also numbers and arrays of NumPy and JAX, and paths."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import describe


def plain(who: str, value: Any) -> Any:
    """The value as JSON carries it: numbers and arrays become those of Python, a path its text, a mapping a dict.

    who: the name of the value, for the error.  Raises TypeError, which names the entry, for anything else.
    """
    if isinstance(value, (np.generic, np.ndarray, jax.Array)):  # before the others: np.float64 is a float, np.str_ a str
        return _of_array(who, value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, os.PathLike) and isinstance(os.fspath(value), str):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {_key(who, key): plain(f"{who}[{key!r}]", v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(f"{who}[{i}]", v) for i, v in enumerate(value)]
    raise _refused(who, value)


def _of_array(who: str, value: Any) -> Any:
    try:
        x = np.asarray(value)
    except TypeError:  # a key of jax.random
        raise _refused(who, value) from None
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x.astype(np.float64).tolist()
    if x.dtype.kind in "biuU":
        return x.tolist()
    raise _refused(who, value)


def _key(who: str, key: Any) -> Any:
    if isinstance(key, np.generic) and key.dtype.kind in "biuU":
        key = key.item()
    if not isinstance(key, (str, int, float)):
        raise TypeError(f"{who}: a name must be a str, got {key!r}; use text as names.")
    return key


def _refused(who: str, value: Any) -> TypeError:
    return TypeError(
        f"{who} cannot be saved as JSON, got {describe(value)}; pass numbers, text, or lists or dictionaries of them."
    )
