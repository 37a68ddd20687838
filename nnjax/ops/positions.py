"""Rotary positions inside anyone's `jax.grad`."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ..errors import describe, expect_float, expect_shape
from ..layers.attending.rotary import Rotary, turned
from ..layers.attending.rotary import rotary as rotary_of
from ..linear import rotate, rotate_t
from ..trees.modes import in_both_modes
from ..trees.varying import together

WHO = "ops.rotary"


@lru_cache
def _turn(by: Rotary) -> Any:
    """(x, positions) -> y."""

    @jax.custom_vjp
    def _turn(x, positions):
        return turned(rotate, x, positions, by)

    def fwd(x, positions):
        return turned(rotate, x, positions, by), positions

    def bwd(positions, ct_y):
        return turned(rotate_t, ct_y, positions, by), None

    _turn.defvjp(fwd, bwd)
    return in_both_modes(_turn, fwd, bwd, WHO)


def rotary(
    x: Array, positions: Array | None = None, *, theta: float = 10000.0, scaling: Mapping[str, Any] | None = None
) -> Array:
    """Feature i of each head turned together with feature i + d/2, by the angle position * theta^(-2 i / d).

    x, y: (..., s, heads, d), queries or keys, before `attention`; positions: integers (s,), by default 0 ... s - 1.  Nothing
    but these is kept: the transpose of a rotation turns back.  scaling: for texts longer than those trained on, a dict as in
    a config.json, {"rope_type": "linear", "factor": 2.0}, of one of these types:

    linear    all angles are divided by factor
    llama3    those of pairs that turn less than low_freq_factor times over original_max_position_embeddings are divided by
              factor, those of pairs that turn more than high_freq_factor times are not, those between in part
    yarn      likewise, between beta_slow and beta_fast turns (1 and 32), and y is multiplied by attention_factor, by default
              0.1 log(factor) + 1 (Peng et al. 2023, section 3)

    Raises TypeError or ValueError for an odd d, positions that are not integers, or a scaling that makes no sense.

    >>> q = jnp.ones((2, 9, 4, 8))
    >>> jax.grad(lambda q: nnjax.ops.rotary(q)[:, 0].sum())(q)[0, 0, 0].tolist()  # position 0 is not turned
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    expect_float(WHO, "x", x)
    if x.ndim < 3:
        raise ValueError(f"{WHO}: x must have shape (..., positions, heads, d), got {describe(x)}; add the missing axis.")
    s = x.shape[-3]
    positions = jnp.arange(s, dtype=jnp.int32) if positions is None else positions
    expect_shape(WHO, "positions", positions, (s,))
    if not jnp.issubdtype(positions.dtype, jnp.integer):
        raise TypeError(f"{WHO}: positions must be integers, got {describe(positions)}; convert them with .astype(int32).")
    by = rotary_of(WHO, x.shape[-1], theta, scaling)
    x = jnp.swapaxes(x, -3, -2)
    return jnp.swapaxes(_turn(by)(*together((x, positions))), -3, -2)
