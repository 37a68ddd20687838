"""Max-pooling on a TPU, which has operations for it and for its transpose. A slice for each entry of the windows would take a
pass over memory each.

pool: a `nnjax.layers.pooling.windows.Pool` without dilation.
"""

from typing import Any

import numpy as np
from jax import Array, lax

from ..maximum import first_maximum, seen


def max_pool_fwd(x: Array, *, pool: Any) -> Any:
    """(y, the number of each window's first maximum): a program that does not use the second forms only y."""
    around = pool.surround(x, -np.inf)
    entries = [seen(around, i, pool.window, pool.stride) for i in np.ndindex(pool.window)]
    where = first_maximum(entries, pool.number(pool.space(x.shape)))[1]
    return lax.reduce_window(x, np.asarray(-np.inf, x.dtype), lax.max, *_windows(x, pool)), where


def max_pool_bwd(residuals: Any, ct_y: Array, *, pool: Any) -> Any:
    """Like `nnjax.layers.pool.max_pool_bwd`. The maximum is found again in x, which reads only x, once."""
    _, x = residuals
    sizes, steps, pads = _windows(x, pool)
    return (), lax.select_and_scatter_add_p.bind(
        ct_y, x, select_prim=lax.ge_p, window_dimensions=sizes, window_strides=steps, padding=pads
    )


def _windows(x, pool):
    """The window, the stride and what lies around over every axis of x."""
    lead = x.ndim - 1 - len(pool.window)
    pads = (*((0, 0),) * lead, *pool.around(pool.space(x.shape)), (0, 0))
    return (*(1,) * lead, *pool.window, 1), (*(1,) * lead, *pool.stride, 1), pads
