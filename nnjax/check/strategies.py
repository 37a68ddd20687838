"""hypothesis strategies for gradient checks: shapes, and inputs at which hand-written gradients often go wrong.

They need hypothesis, from the test extra.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

HARD = (0.0, -0.0, 0.5, 1.0, -1.0, 30.0, -30.0, 1e4, -1e4)


def shapes(min_dims: int = 0, max_dims: int = 3, max_side: int = 7, empty: bool = True) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes with few and small axes, also of size 0 (if `empty`) and 1."""
    return st.lists(st.integers(0 if empty else 1, max_side), min_size=min_dims, max_size=max_dims).map(tuple)


@st.composite
def arrays(draw: Any, shape: Any = None, dtype: Any = np.float32, subnormal: bool = True) -> np.ndarray:
    """Arrays of normal numbers with some ties, zeros, saturating and (if `subnormal`) subnormal numbers.

    shape: a tuple, or a strategy for one.
    """
    if shape is None:
        shape = draw(shapes())
    elif isinstance(shape, st.SearchStrategy):
        shape = draw(shape)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.standard_normal(shape)
    hard = [*HARD, float(np.finfo(np.float32).smallest_subnormal) * 3] if subnormal else HARD
    for value in draw(st.lists(st.sampled_from(hard), max_size=4)):
        x = np.where(rng.random(shape) < 0.2, value, x)
    return np.asarray(x).astype(dtype)


def ids(shape: Sequence[int], vocab: int) -> st.SearchStrategy[np.ndarray]:
    """int32 arrays of ids below `vocab`, most of them repeated."""

    def make(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        few = rng.integers(0, vocab, max(1, int(np.prod(shape)) // 3))
        return rng.choice(few, tuple(shape)).astype(np.int32)

    return st.integers(0, 2**32 - 1).map(make)
