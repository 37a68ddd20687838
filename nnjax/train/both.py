"""Training with both gradients at every step, from the same parameters: a run stops where they differ."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..check.vjp import Difference
from ..grad import ValueAndGrad
from .loop import GradientsApart


class Both(NamedTuple):
    """value_and_grad: by hand, with the value NaN where the two differ; where(params, x, labels, key): for `fit`, which then
    calls it; it raises GradientsApart."""

    value_and_grad: ValueAndGrad
    where: Callable[..., str]


def held_together(
    hand: ValueAndGrad, reference: ValueAndGrad, first: Sequence[Difference], where: Callable[..., str] | None = None
) -> Both:
    """The gradient by hand, compared with the reference at every step.

    They may differ by the first step's budget, relative to the larger of the first gradient and the present one.
    where: as in `fit`, called where the loss itself is not finite.
    """

    def compared(*args, **kwargs):
        value, grads = hand(*args, **kwargs)
        pairs = zip(jax.tree.leaves((value, grads)), jax.tree.leaves(reference(*args, **kwargs)), strict=True)
        apart, size = (jnp.stack(norms) for norms in zip(*((_norm(h - r), _norm(r)) for h, r in pairs)))
        allowed = jnp.asarray([d.budget for d in first], size.dtype)
        allowed *= jnp.maximum(jnp.asarray([d.scale for d in first], size.dtype), size)
        return value, grads, apart, allowed

    def value_and_grad(*args, **kwargs):
        value, grads, apart, allowed = compared(*args, **kwargs)
        return jnp.where((apart <= allowed).all(), value, jnp.full_like(value, jnp.nan)), grads

    measured = jax.jit(compared)

    def asked(params, x, labels, key):
        value, _, apart, allowed = measured(params, x, labels, key=key)
        if bool(jnp.isfinite(value)):
            for d, off, most in zip(first, apart.tolist(), allowed.tolist()):
                if not off <= most:
                    raise GradientsApart(f"{d.leaf} differs by {off:.3g}, at most {most:.3g} is allowed")
        return where(params, x, labels, key) if where else ""

    return Both(value_and_grad, asked)


def _norm(x: jax.Array) -> jax.Array:
    return jnp.linalg.norm(x.astype(jnp.promote_types(x.dtype, jnp.float32)).ravel())
