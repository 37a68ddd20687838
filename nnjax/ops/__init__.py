"""Functional forms whose hand-written backward works inside anyone's `jax.grad`, under `jit`, `vmap` and `scan`.

Each is a `jax.custom_vjp`: its value is the layer's definition, its rule the layer's pair. Forward mode
raises TypeError: use the layer's definition, its `apply`, for that.

>>> jax.grad(lambda x: nnjax.ops.max_pool(x, (2, 2)).sum())(jnp.ones((2, 4, 4, 3))).shape
(2, 4, 4, 3)
"""

from .activations import gelu as gelu
from .activations import silu as silu
from .attend import attention as attention
from .attend import dot_product_attention as dot_product_attention
from .gates import geglu as geglu
from .gates import swiglu as swiglu
from .images import conv as conv
from .images import max_pool as max_pool
from .norms import batch_norm as batch_norm
from .norms import group_norm as group_norm
from .norms import layer_norm as layer_norm
from .norms import rms_norm as rms_norm
from .positions import rotary as rotary
from .vocabulary import linear_cross_entropy as linear_cross_entropy

__all__ = [name for name, value in globals().items() if callable(value)]


def __dir__() -> list[str]:
    return sorted(__all__)
