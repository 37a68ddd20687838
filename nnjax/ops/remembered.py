"""Rules are made once for each set of options, so that JAX knows them again."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any


def remembered(make: Callable[..., Any]) -> Callable[..., Any]:
    """make, which is called once for the same arguments. With some that cannot be hashed it is called each time: most likely
    they are no options, and it says so."""
    once = lru_cache(make)

    def made(*args: Any, **how: Any) -> Any:
        try:
            hash((args, tuple(how.values())))
        except TypeError:
            return make(*args, **how)
        return once(*args, **how)

    return made
