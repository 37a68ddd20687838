"""The ways in which a rule is run: each turns run(diff, other, cts) -> Outputs into another such function."""

from collections.abc import Callable

import jax

from ..errors import unknown_name


def eager(run: Callable) -> Callable:
    """Operation by operation."""
    return run


def jit(run: Callable) -> Callable:
    """Compiled as one program."""
    return jax.jit(run)


TRANSFORMS = {"eager": eager, "jit": jit}


def named(name: str) -> Callable:
    """The transform of this name. Raises ValueError for a name that is not known."""
    if name not in TRANSFORMS:
        raise unknown_name("transform", name, TRANSFORMS)
    return TRANSFORMS[name]
