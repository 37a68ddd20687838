"""Functional forms whose hand-written backward works inside anyone's `jax.grad`, under `jit`, `vmap` and `scan`.

Each is a `jax.custom_vjp`: its value is the layer's definition, its rule the layer's pair. Forward mode (`jax.jvp`,
`jax.jacfwd`) runs the transpose of its backward, which is the derivative again: J = (Jᵀ)ᵀ.

>>> jax.grad(lambda x: nnjax.ops.max_pool(x, (2, 2)).sum())(jnp.ones((2, 4, 4, 3))).shape
(2, 4, 4, 3)
"""

from .activations import gelu as gelu
from .activations import silu as silu
from .attend import attention as attention
from .attend import dot_product_attention as dot_product_attention
from .gates import geglu as geglu
from .gates import swiglu as swiglu
from .images import avg_pool as avg_pool
from .images import conv as conv
from .images import conv_transpose as conv_transpose
from .images import max_pool as max_pool
from .losses import softmax_cross_entropy as softmax_cross_entropy
from .norms import batch_norm as batch_norm
from .norms import group_norm as group_norm
from .norms import layer_norm as layer_norm
from .norms import rms_norm as rms_norm
from .positions import rotary as rotary
from .recurrences import gru as gru
from .recurrences import linear_recurrence as linear_recurrence
from .recurrences import lstm as lstm
from .recurrences import rg_lru as rg_lru
from .recurrences import rnn as rnn
from .routing import mixture_of_experts as mixture_of_experts
from .routing import ragged_dot as ragged_dot
from .vocabulary import linear_cross_entropy as linear_cross_entropy
from .vocabulary import linear_dpo as linear_dpo
from .vocabulary import linear_jensen_shannon as linear_jensen_shannon
from .vocabulary import linear_kl_divergence as linear_kl_divergence


def __dir__() -> list[str]:
    return sorted(name for name, value in globals().items() if callable(value) and not name.startswith("_"))
