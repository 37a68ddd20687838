"""Activations inside anyone's `jax.grad`, which keep their input alone."""

from jax import Array

from .. import layers
from ..errors import expect_flag
from ..layer import as_custom_vjp
from .remembered import remembered

_called = remembered(lambda make, *args: as_custom_vjp(make(*args)))


def gelu(x: Array, *, approximate: bool = False) -> Array:
    """y = x P(x), with P the standard normal distribution function, or its tanh approximation: `nnjax.gelu` of x.

    x, y: any shape.  Raises TypeError for an x that is not real floating point.

    >>> jax.grad(nnjax.ops.gelu)(jnp.array(0.0)).tolist()
    0.5
    """
    expect_flag("ops.gelu", approximate=approximate)
    return _called(layers.gelu, bool(approximate))((), x)


def silu(x: Array) -> Array:
    """y = x sigmoid(x): `nnjax.silu` of x.

    x, y: any shape.  Raises TypeError for an x that is not real floating point.

    >>> jax.grad(nnjax.ops.silu)(jnp.array(0.0)).tolist()
    0.5
    """
    return _called(layers.silu)((), x)
