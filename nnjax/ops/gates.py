"""Gates inside anyone's `jax.grad`, which keep their two halves alone."""

from jax import Array

from .. import layers
from ..errors import expect_flag
from ..layer import as_custom_vjp
from ..layers.gating.gate import gate as gate_of
from .remembered import remembered

_called = remembered(lambda make, *args: as_custom_vjp(gate_of(make(*args))))


def swiglu(gate: Array, up: Array) -> Array:
    """y = silu(gate) * up, entry by entry: what stands between the dense maps of `nnjax.swiglu`.

    gate, up, y: one shape.  Each half is the factor of the other's cotangent: ct_up = ct_y silu(gate), ct_gate =
    ct_y up silu'(gate).  Raises TypeError or ValueError for halves of another dtype or shape.

    >>> gate, up = jnp.zeros(2), jnp.array([1.0, 2.0])
    >>> jax.grad(lambda gate: nnjax.ops.swiglu(gate, up).sum())(gate).tolist()
    [0.5, 1.0]
    """
    return _called(layers.silu)((), (gate, up))


def geglu(gate: Array, up: Array, *, approximate: bool = False) -> Array:
    """y = gelu(gate) * up, entry by entry, with the exact gelu or its tanh formula: the middle of `nnjax.geglu`.

    gate, up, y: one shape.  Raises TypeError or ValueError for halves of another dtype or shape.

    >>> nnjax.ops.geglu(jnp.zeros(2), jnp.ones(2)).tolist()
    [0.0, 0.0]
    """
    expect_flag("ops.geglu", approximate=approximate)
    return _called(layers.gelu, bool(approximate))((), (gate, up))
