"""What carries the error back through a weight matrix: the transpose, and what people have tried instead.

An operator maps w to a matrix of the shape of `w.T`. In rows (`dense`) the error is sent back as `ct_y @ operator(w)`,
in columns (`nielsen`) as `operator(w) @ delta`; for a convolution, w is the matrix that multiplies its windows. Only the
transpose gives the gradient: it alone satisfies <delta, w a> = <B delta, a> for every a and delta.
`direct` feedback goes from the output straight to every layer. It does not belong to one layer, so it is a
`value_and_grad` of its own (`nnjax.direct_value_and_grad`).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.core import Tracer

from .errors import (
    describe,
    expect_array,
    expect_callable,
    expect_float,
    expect_key,
    expect_positive,
    expect_same_dtype,
    expect_shape,
    is_array,
    unknown_name,
)
from .linear import wide

Operator = Callable[[Array], Array]
EQUAL, FIXED, REDRAWN = "equal", "fixed", "redrawn"
MAGNITUDES = (EQUAL, FIXED, REDRAWN)


def expect_operator(who: str, feedback: Any) -> None:
    """Raise TypeError unless feedback is a function of w. Common mistakes: its name, and `random` without a key."""
    if any(feedback is made for made in (random, sign_symmetric, named)):
        raise TypeError(f"{who}: feedback must be an operator, got feedback.{feedback.__name__} itself; call it, as in "
                        f"feedback.{feedback.__name__}({'key' if feedback is random else '...'}).")  # fmt: skip
    expect_callable(who, "feedback", feedback, "pass one of nnjax.feedback, such as feedback.random(jax.random.key(0))")


def like_the_transpose(who: str, feedback: Operator) -> Operator:
    """The operator, raising ValueError if its result does not have the shape of w.T."""

    def operator(w):
        back = feedback(w)
        if not is_array(back) or back.shape != w.shape[::-1]:
            raise ValueError(f"{who}: feedback(w) must have the shape of w.T, {w.shape[::-1]}, got {describe(back)}; it "
                             "maps the error of the outputs to that of the inputs.")  # fmt: skip
        return back

    return operator


def transpose(w: Array) -> Array:
    """w: (m, n) -> w.T: (n, m), the one matrix B with <delta, w a> = <B delta, a> for every a and delta."""
    expect_array("feedback.transpose", "w", w)
    return w.T


def inverse(w: Array) -> Array:
    """w: (n, n) -> w⁻¹: what undoes w. It sends a *change* of the outputs back to the change of the inputs that makes it.

    It equals the transpose only if w is orthogonal.  Raises ValueError if w is not square, or concrete and singular; if w is
    traced and singular, no entry is finite.
    """
    expect_float("feedback.inverse", "w", w)
    if w.ndim != 2 or w.shape[0] != w.shape[1] or not w.size:
        raise ValueError(
            f"feedback.inverse: w must be square to have an inverse, got {describe(w)}; use transpose, which every matrix has, "
            "or pseudo_inverse."
        )
    widened = w.astype(wide(w))
    found = jnp.linalg.inv(widened)
    if not isinstance(w, Tracer):
        # Rounding can hide an exact zero among the pivots: beyond 1 / eps no digit of an inverse is right.
        condition = jnp.linalg.norm(widened, 1) * jnp.linalg.norm(found, 1)
        if not bool(condition < 1 / jnp.finfo(found.dtype).eps):
            raise ValueError(
                "feedback.inverse: w is singular, so it has no inverse: it sends some change of the inputs to no change of the "
                "outputs at all; use transpose, which every matrix has, or pseudo_inverse."
            )
    return found.astype(w.dtype)


def pseudo_inverse(w: Array) -> Array:
    """w: (m, n) -> w⁺: (n, m), Moore and Penrose's: of all changes of the inputs that come nearest, the smallest.

    It equals the inverse if there is one, and the transpose if every singular value is 0 or 1.
    """
    _expect_matrix("feedback.pseudo_inverse", w)
    return jnp.linalg.pinv(w.astype(wide(w))).astype(w.dtype)


def random(key: Array) -> Operator:
    """w: (m, n) -> a fixed B: (n, m), drawn once from the key with Glorot's variance 2 / (m + n), independent of w.

    Feedback alignment: training turns w until the error that comes through B descends (Lillicrap et al. 2016).
    Raises TypeError if key is not a key of jax.random.
    """
    expect_key("feedback.random", key)
    return lambda w: _drawn(key, w)


def sign_symmetric(magnitudes: str = EQUAL, key: Any = None) -> Operator:
    """w -> sign(w.T) times magnitudes that are not w's: "equal" ones, "fixed" random ones, or ones "redrawn" at each step.

    Liao, Leibo and Poggio 2016 call them uSF, frSF and brSF. equal: sqrt(2 / (m + n)), Glorot's deviation; the others are
    |M|, M normal of that deviation.  Raises ValueError for unknown magnitudes, TypeError for random ones without a key.
    """
    if not isinstance(magnitudes, str) or magnitudes not in MAGNITUDES:
        raise unknown_name("magnitudes of feedback.sign_symmetric", magnitudes, MAGNITUDES)
    if magnitudes == EQUAL:
        return lambda w: _deviation(w) * jnp.sign(w.T)
    expect_key(f"feedback.sign_symmetric({magnitudes!r})", key)
    if magnitudes == FIXED:
        return lambda w: jnp.abs(_drawn(key, w)) * jnp.sign(w.T)

    def redrawn(w):
        _expect_matrix("feedback.sign_symmetric('redrawn')", w)
        # The bits of w choose the numbers, and each step changes w.
        bits = lax.bitcast_convert_type(w.astype(jnp.float32).sum(), jnp.uint32)
        return jnp.sign(w.T) * jnp.abs(_normal(jax.random.fold_in(key, bits), w))

    return redrawn


def mirror(w: Array) -> Array:
    """A name to pass as `dense(..., feedback=mirror)`: B is a parameter beside w, and learns what w learns.

    Kolen and Pollack 1994: both get the same update, transposed, and both decay, so that B - wᵀ decays too (train with L2).
    It is not a function of w, so calling it raises TypeError.
    """
    raise TypeError(
        "feedback.mirror: B is a parameter of its own, not a function of w; pass feedback=mirror to dense, conv, mlp or lenet, "
        "or to nielsen.backprop the matrices themselves."
    )


def named(name: str, key: Array, n: int = 1) -> tuple[Operator, ...]:
    """Operators for n layers by name, each with its own random numbers.

    transpose, inverse, pseudo_inverse, random, sign_symmetric, sign_symmetric_fixed, sign_symmetric_redrawn, mirror.
    Raises ValueError for an unknown name.
    """
    (n,) = expect_positive("feedback.named", n=n)
    expect_key("feedback.named", key)
    if not isinstance(name, str) or name not in LOCAL:
        raise unknown_name("feedback", name, LOCAL)
    return tuple(LOCAL[name](k) for k in jax.random.split(key, n))


LOCAL: dict[str, Callable[[Array], Operator]] = {
    "transpose": lambda key: transpose,
    "inverse": lambda key: inverse,
    "pseudo_inverse": lambda key: pseudo_inverse,
    "random": random,
    "sign_symmetric": lambda key: sign_symmetric(),
    "sign_symmetric_fixed": lambda key: sign_symmetric(FIXED, key),
    "sign_symmetric_redrawn": lambda key: sign_symmetric(REDRAWN, key),
    "mirror": lambda key: mirror,
}


def for_layers(who: str, feedback: Operator | Sequence[Operator], n: int) -> tuple[Operator, ...]:
    """One operator for each of n layers.  Raises ValueError for a different number of operators."""
    if not callable(feedback) and not isinstance(feedback, (tuple, list)):
        expect_operator(who, feedback)
    found = (feedback,) * n if callable(feedback) else tuple(feedback)
    if len(found) != n or not all(callable(f) for f in found):
        raise ValueError(
            f"{who}: feedback must be one operator or one for each of its {n} layers with weights, got {len(found)}; pass "
            f"e.g. feedback.named('random', key, {n})."
        )
    return found


def angle(u: Any, v: Any) -> Array:
    """Degrees between two arrays (or trees of them) as vectors: exactly 0 if they are equal, NaN if one is zero.

    2 atan2(|a - b|, |a + b|) of the vectors scaled to length 1, which stays accurate near 0 and 180 (Kahan 2006).
    """
    if jax.tree.structure(u) != jax.tree.structure(v) or not jax.tree.leaves(u):
        raise ValueError(f"feedback.angle: u and v must be trees of one structure, with arrays in it, got {describe(u)} and "
                         f"{describe(v)}; pass gradients of one model.")  # fmt: skip
    for p, q in zip(jax.tree.leaves(u), jax.tree.leaves(v)):
        expect_float("feedback.angle", "u", p)
        expect_shape("feedback.angle", "v", q, p.shape)
        expect_same_dtype("feedback.angle", "v", q, "u", p)
    a, b = (jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(t)]) for t in (u, v))
    a, b = a / jnp.linalg.norm(a), b / jnp.linalg.norm(b)
    return 2 * jnp.arctan2(jnp.linalg.norm(a - b), jnp.linalg.norm(a + b)) * (180 / math.pi)


def _expect_matrix(who, w):
    expect_float(who, "w", w)
    if w.ndim != 2 or not w.size:
        raise ValueError(f"{who}: w must be a matrix (m, n) with entries, got {describe(w)}; reshape it.")


def _deviation(w):
    _expect_matrix("feedback", w)
    return math.sqrt(2 / sum(w.shape))


def _normal(key, w):
    return (_deviation(w) * jax.random.normal(key, w.shape[::-1], jnp.float32)).astype(w.dtype)


def _drawn(key, w):
    with jax.ensure_compile_time_eval():  # a constant of the compiled program, not drawn at each step
        return _normal(key, w)
