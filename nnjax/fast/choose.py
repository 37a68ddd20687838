"""One map, several spellings of it: which one runs is chosen for the platform that the program is lowered for."""

from collections.abc import Callable
from typing import Any

from jax import lax


def by_platform(*args: Any, plain: Callable, **fast: Callable) -> Any:
    """f(*args) for the platform's f of `fast` (cpu=, cuda=, tpu=, ...), and `plain` where none is known to be faster.

    All have the same arguments and give the same arrays. Chosen at lowering, never by the default device, so that programs
    exported, or compiled ahead for a machine that is not there, are right; what is not chosen leaves nothing behind.
    To be put around the smallest map that makes new arrays: an argument that is among the results may be copied.
    """
    return lax.platform_dependent(*args, default=plain, **fast)
