"""What carries the error back through a weight matrix: the transpose.

An operator maps w to a matrix of the shape of `w.T`. In rows (`dense`) the error is sent back as `ct_y @ operator(w)`,
in columns (`nielsen`) as `operator(w) @ delta`. Only the transpose gives the gradient.
"""

from jax import Array


def transpose(w: Array) -> Array:
    """w: (m, n) -> w.T: (n, m), the one matrix B with <delta, w a> = <B delta, a> for every a and delta."""
    return w.T
