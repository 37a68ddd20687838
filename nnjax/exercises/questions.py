"""The exercises, in rising order."""

import jax.numpy as jnp
import numpy as np

from . import sequences, tensors
from .exercise import Exercise


def _normal(*shapes: tuple[int, ...], scale: float = 1.0, shift: float = 0.0):
    """Arguments of these shapes, when they are asked for: importing starts no backend."""

    def arguments():
        rng = np.random.default_rng(0)
        return tuple(jnp.asarray(shift + scale * rng.standard_normal(shape), jnp.float32) for shape in shapes)

    return arguments


def _positive():
    return (jnp.asarray(np.random.default_rng(0).uniform(0.5, 2, (4, 5)), jnp.float32),)


def _scores():
    return (*_normal((5, 4))(), jnp.asarray([2, 0, 3, 3, 1], jnp.int32))


ALL = (
    Exercise("shares", tensors.shares, tensors.shares_fwd, _positive, ("x", "s"), tensors.shares_mistakes),
    Exercise(
        "project", tensors.project, tensors.project_fwd, _normal((2, 3, 4), (5, 4, 4)), ("x", "w"), tensors.project_mistakes
    ),
    Exercise(
        "cross_entropy", tensors.cross_entropy, tensors.cross_entropy_fwd, _scores, ("p", "labels"),
        tensors.cross_entropy_mistakes,
    ),
    Exercise(
        "batch_norm", tensors.batch_norm, tensors.batch_norm_fwd, _normal((6, 3), (3,), (3,), scale=1.5, shift=0.5),
        ("x_hat", "s", "gamma"), tensors.batch_norm_mistakes,
    ),
    Exercise(
        "convolve", tensors.convolve, tensors.convolve_fwd, _normal((10, 2), (3, 2, 4)), ("x", "w"),
        tensors.convolve_mistakes, (tensors.windows,),
    ),
    Exercise(
        "attend", sequences.attend, sequences.attend_fwd, _normal((5, 4), (5, 4), (5, 3)), ("q", "k", "v", "p"),
        sequences.attend_mistakes,
    ),
    Exercise(
        "recurrence", sequences.recurrence, sequences.recurrence_fwd, _normal((4, 4), (3, 4), (4,), (7, 3), scale=0.6),
        ("u", "w", "xs", "before", "hs"), sequences.recurrence_mistakes,
    ),
    Exercise(
        "in_pieces", sequences.in_pieces, sequences.in_pieces_fwd, _normal((4, 4), (3, 4), (4,), (11, 3), scale=0.6),
        ("u", "w", "xs", "before", "hs", "start"), sequences.in_pieces_mistakes, (sequences.starts,),
    ),
)  # fmt: skip

EXERCISES = {exercise.name: exercise for exercise in ALL}
