"""One map with several spellings: the platform that the program is lowered for decides which one runs."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from jax import Array, lax


def by_platform(*args: Any, plain: Callable[..., Any], how: Mapping[str, Any] | None = None, **fast: Callable[..., Any]) -> Any:
    """f(*args, **how), with the f in `fast` (cpu=, cuda=, tpu=, ...) for the platform, or `plain` if there is none.

    All take the same arguments and return the same arrays. The choice is made at lowering, not by the default device, so
    exported programs, and programs compiled ahead for other machines, are right; unused spellings leave no trace.
    Use it around the smallest map that makes new arrays, as an argument that is also a result may be copied.
    how: keywords for each of them.
    """
    spellings = {name: partial(f, **(how or {})) for name, f in fast.items()}
    return lax.platform_dependent(*args, default=partial(plain, **(how or {})), **spellings)


def as_it_is(x: Array) -> Array:
    """x: a compiler may fuse it with what comes before and after, where a spelling may pass a barrier in its place."""
    return x
