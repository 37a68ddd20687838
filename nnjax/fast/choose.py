"""One map, several spellings of it: which one runs is chosen for the platform that the program is lowered for."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from jax import lax


def by_platform(*args: Any, plain: Callable[..., Any], how: Mapping[str, Any] | None = None, **fast: Callable[..., Any]) -> Any:
    """f(*args, **how) for the platform's f of `fast` (cpu=, cuda=, tpu=, ...), and `plain` where none is known to be faster.

    All have the same arguments and give the same arrays. Chosen at lowering, never by the default device, so that programs
    exported, or compiled ahead for a machine that is not there, are right; what is not chosen leaves nothing behind.
    To be put around the smallest map that makes new arrays: an argument that is among the results may be copied.
    how: keywords for each of them.
    """
    spellings = {name: partial(f, **(how or {})) for name, f in fast.items()}
    return lax.platform_dependent(*args, default=partial(plain, **(how or {})), **spellings)
