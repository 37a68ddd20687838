"""The product that gives the gradient of a weight matrix, on a CPU."""

from jax import Array, lax

# At least this many rows, and a tall result: bench case `gpt`, where 2048 rows give (512, 128).
ROWS, TALL = 256, 2


def adjoint(x_t: Array, ct_y: Array) -> Array:
    """x_t ct_y.  x_t: (n, rows), ct_y: (rows, m), result: (n, m).

    XLA's product with a transposed left matrix costs more the taller it is. For a tall one the transposed result is formed,
    which is small, and transposed back.
    """
    (n, rows), m = x_t.shape, ct_y.shape[1]
    if rows < ROWS or n < TALL * m:
        return x_t @ ct_y
    return lax.optimization_barrier(ct_y.T @ x_t.T).T  # without the barrier XLA undoes it
