"""The dense layer split in two ways: by outputs, and by inputs (Shoeybi et al. 2019)."""

from collections.abc import Callable
from typing import Any

from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ..errors import expect_positive
from ..layer import Layer
from ..layers.dense import dense, dense_apply, dense_bwd, dense_fwd
from ..linear import broadcast, broadcast_t
from .collectives import copy_to, copy_to_t, reduce_from, reduce_from_t
from .sharded import Sharded, expect_divides, like_parameters


def column_dense_apply(params: Any, x: Array, *, key: Any = None, axis: str) -> Array:
    """y_i = x W_i + b_i on device i, its columns of W.  x: (..., n_in), the same on all; W_i: (n_in, n_out / devices)."""
    return dense_apply(params, copy_to(x, axis))


def column_dense_fwd(params: Any, x: Array, *, key: Any = None, axis: str) -> Any:
    return dense_fwd(params, copy_to(x, axis))


def column_dense_bwd(residuals: Any, ct_y: Array, *, axis: str) -> Any:
    ct_params, ct_x = dense_bwd(residuals, ct_y)
    return ct_params, copy_to_t(ct_x, axis)  # every device has a copy of x: sum what each sends back


def column_dense(
    n_in: int, n_out: int, mesh: Mesh, axis: str = "model", *, init: Callable[..., Array] | None = None
) -> Sharded:
    """`nnjax.dense` split by columns: the outputs lie on the devices of the axis. Forward sends nothing, backward sums ct_x.

    Raises ValueError if n_out is not a multiple of the axis.
    """
    n_in, n_out = expect_positive("column_dense", n_in=n_in, n_out=n_out)
    expect_divides("column_dense", "n_out", n_out, mesh, axis)
    layer = Layer(
        f"column_dense({n_in}, {n_out})",
        dense(n_in, n_out, init=init).init,
        lambda params, x, *, key=None: column_dense_apply(params, x, axis=axis),
        lambda params, x, *, key=None: column_dense_fwd(params, x, axis=axis),
        lambda residuals, ct_y: column_dense_bwd(residuals, ct_y, axis=axis),
    )
    return Sharded(layer, like_parameters(layer, [P(None, axis), P(axis)]))


def row_dense_apply(params: Any, x: Array, *, key: Any = None, axis: str) -> Array:
    """y = sum_i x_i W_i + b: every device has its rows of W, and its part x_i of the features.  y: (..., n_out), on all."""
    y = reduce_from(x @ params.w, axis)
    return y + broadcast(params.b, y.shape)


def row_dense_fwd(params: Any, x: Array, *, key: Any = None, axis: str) -> Any:
    return row_dense_apply(params, x, axis=axis), (params, x)


def row_dense_bwd(residuals: Any, ct_y: Array, *, axis: str) -> Any:
    params, x = residuals
    ct_part, ct_x = dense_bwd((params._replace(b=None), x), reduce_from_t(ct_y, axis))  # each summand gets the whole ct_y
    return ct_part._replace(b=broadcast_t(ct_y, params.b.shape)), ct_x  # b is added once, after the sum


def row_dense(n_in: int, n_out: int, mesh: Mesh, axis: str = "model", *, init: Callable[..., Array] | None = None) -> Sharded:
    """`nnjax.dense` split by rows: the inputs lie on the devices of the axis. Forward sums y, backward sends nothing.

    Raises ValueError if n_in is not a multiple of the axis.
    """
    n_in, n_out = expect_positive("row_dense", n_in=n_in, n_out=n_out)
    expect_divides("row_dense", "n_in", n_in, mesh, axis)
    layer = Layer(
        f"row_dense({n_in}, {n_out})",
        dense(n_in, n_out, init=init).init,
        lambda params, x, *, key=None: row_dense_apply(params, x, axis=axis),
        lambda params, x, *, key=None: row_dense_fwd(params, x, axis=axis),
        lambda residuals, ct_y: row_dense_bwd(residuals, ct_y, axis=axis),
    )
    return Sharded(layer, like_parameters(layer, [P(axis, None), P()]))
