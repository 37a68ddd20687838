"""The product that gives the gradient of a weight matrix, on a CPU."""

from jax import Array, lax

# At least so many rows, and a tall result: `gpt` of the bench, where 2048 rows give (512, 128).
ROWS, TALL = 256, 2


def adjoint(x_t: Array, ct_y: Array) -> Array:
    """x_t ct_y.  x_t: (n, rows), ct_y: (rows, m), result: (n, m).

    XLA multiplies a transposed left matrix in a way that costs more the taller it is. Of a tall one the transposed result is
    formed, and turned: it is small.
    """
    (n, rows), m = x_t.shape, ct_y.shape[1]
    if rows < ROWS or n < TALL * m:
        return x_t @ ct_y
    return lax.optimization_barrier(ct_y.T @ x_t.T).T  # without the barrier XLA undoes it
