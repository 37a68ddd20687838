"""The kinds of numbers to measure in: float32 at the device's default matmul precision, at full precision, or bfloat16."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Kind(NamedTuple):
    """A dtype for every floating-point argument, and a precision as `jax.default_matmul_precision` names it."""

    dtype: str = "float32"
    precision: str = "default"

    @property
    def label(self) -> str:
        """A name for people; bfloat16 has one precision."""
        return f"{self.dtype} {self.precision}" if self.dtype == "float32" else self.dtype

    def named(self, case: str) -> str:
        """The name of the case in this kind; the main kind adds nothing."""
        return case if self == MAIN else f"{case}, {self.precision if self.dtype == MAIN.dtype else self.dtype}"

    def cast(self, args: Any) -> Any:
        """The arguments, with every floating-point array in this dtype."""
        return jax.tree.map(lambda x: x.astype(self.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, args)


MAIN = Kind()


def kinds(dtypes: Sequence[str], precisions: Sequence[str]) -> list[Kind]:
    """Each kind once, the main one first: float32 at every precision; bfloat16, whose products are exact in float32, at one.

    Raises ValueError if there is none.
    """
    found = [Kind(d, p) for d in dtypes for p in (precisions if d == "float32" else ("default",))]
    if not found:
        raise ValueError(
            "bench: expected at least one kind of number, got none; name a --dtype, with float32 also a --precision."
        )
    return sorted(dict.fromkeys(found), key=lambda kind: kind != MAIN)
