"""A layer and inputs to hold it to."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ..layer import Layer

LEADS = ((), (0,), (1,), (7,), (2, 3))  # no leading axis, an empty batch, batch 1, batch 7, two leading axes


class Case(NamedTuple):
    """A layer and its inputs: inputs(rng, lead) -> x. keyed: whether the layer draws random numbers."""

    name: str
    layer: Layer
    inputs: Callable[[np.random.Generator, tuple[int, ...]], Any]
    keyed: bool = False

    def make(self, seed: int, lead: tuple[int, ...] = (7,)) -> tuple[Any, Any, Any]:
        """(params, x, key) drawn from this seed."""
        params = quickly(self.layer.init, jax.random.key(seed))
        x = self.inputs(np.random.default_rng(seed), lead)
        return params, x, jax.random.key(seed + 1) if self.keyed else None


def quickly(f: Callable[..., Any], *args: Any) -> Any:
    """f(*args) as one program, compiled with few optimisations: with all, one that draws random numbers takes seconds."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(f, compiler_options=options)(*args)
