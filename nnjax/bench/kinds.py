"""In which numbers a case is measured: float32 at the device's own precision of products, at full precision, or bfloat16."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Kind(NamedTuple):
    """A dtype of every floating argument, and a precision of products as `jax.default_matmul_precision` names it."""

    dtype: str = "float32"
    precision: str = "default"

    @property
    def label(self) -> str:
        """In words; bfloat16 has one precision."""
        return f"{self.dtype} {self.precision}" if self.dtype == "float32" else self.dtype

    def named(self, case: str) -> str:
        """The case in these numbers. The main one has no addition."""
        return case if self == MAIN else f"{case}, {self.precision if self.dtype == MAIN.dtype else self.dtype}"

    def cast(self, args: Any) -> Any:
        """Every floating array in this dtype, everything else as it is."""
        return jax.tree.map(lambda x: x.astype(self.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, args)


MAIN = Kind()


def kinds(dtypes: Sequence[str], precisions: Sequence[str]) -> list[Kind]:
    """Each once, the main one first: float32 at every precision; of bfloat16, whose products are exact in float32, one.

    Raises ValueError where there is none.
    """
    found = [Kind(d, p) for d in dtypes for p in (precisions if d == "float32" else ("default",))]
    if not found:
        raise ValueError("bench: there is nothing to measure; name a --dtype, and with float32 a --precision.")
    return sorted(dict.fromkeys(found), key=lambda kind: kind != MAIN)
