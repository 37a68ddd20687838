"""Max-pooling on a TPU, which has operations for it and for its transpose. A slice for each entry of the windows would take a
pass over memory each.

pool: a `nnjax.layers.pooling.windows.Pool` without padding or dilation.
"""

from typing import Any

import numpy as np
from jax import Array, lax

from ..maximum import first_maximum, seen


def max_pool_fwd(x: Array, *, pool: Any) -> Any:
    """(y, the number of each window's first maximum): a program that does not use the second forms only y."""
    window, stride = pool.window, pool.stride
    where = first_maximum([seen(x, i, window, stride) for i in np.ndindex(window)])[1]
    return lax.reduce_window(x, np.asarray(-np.inf, x.dtype), lax.max, *_windows(x, window, stride), "VALID"), where


def max_pool_bwd(residuals: Any, ct_y: Array, *, pool: Any) -> Any:
    """Like `nnjax.layers.pool.max_pool_bwd`. The maximum is found again in x, which reads only x, once."""
    _, x = residuals
    sizes, steps = _windows(x, pool.window, pool.stride)
    return (), lax.select_and_scatter_add_p.bind(
        ct_y, x, select_prim=lax.ge_p, window_dimensions=sizes, window_strides=steps, padding=((0, 0),) * x.ndim
    )


def _windows(x, window, stride):
    """The window and the stride over every axis of x."""
    lead = (1,) * (x.ndim - 1 - len(window))
    return (*lead, *window, 1), (*lead, *stride, 1)
