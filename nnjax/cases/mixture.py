"""The cases of mixtures of experts."""

import math
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import auxiliary, layers
from ..combinators import residual, serial
from ..layer import Layer
from ..layers.routing import ragged
from ..leaf import leaf, outline, outlined
from ..linear import fold
from ..losses.fused import linear_cross_entropy
from ..models.moe import moe
from .case import Case
from .inputs import ids, positions


def _ragged_dot() -> Layer:
    """`ragged_dot` as a layer.  x: (rows (..., k), w (groups, k, n), sizes (groups,))."""

    def apply(params, x, *, key=None):  # each row with a copy of its own matrix
        x, w, sizes = x
        ends, rows = jnp.cumsum(sizes, dtype=sizes.dtype), jnp.arange(math.prod(x.shape[:-1]), dtype=sizes.dtype)
        own = w[jnp.searchsorted(ends, rows, side="right")]
        return jnp.einsum("rk,rkn->rn", fold(x), own).reshape(*x.shape[:-1], w.shape[2])

    def fwd(params, x, *, key=None, by=ragged.PLAIN):
        x, w, sizes = x
        y = by.dot(fold(x), w, sizes).reshape(*x.shape[:-1], w.shape[2])
        return y, (x, w, sizes, outline(y))

    def bwd(residuals, ct_y, *, by=ragged.PLAIN):
        x, w, sizes, _ = residuals
        return (), (by.dot_t(fold(ct_y), w, sizes).reshape(x.shape), by.outer(fold(x), fold(ct_y), sizes), None)

    fast = partial(fwd, by=ragged.FAST), partial(bwd, by=ragged.FAST)
    return leaf("ragged_dot", lambda key: (), apply, fwd, bwd, lambda residuals: outlined(residuals[3]), fast=fast)


def _groups(groups: int, k: int, n: int) -> Any:
    """The second group has no row, if there is more than one."""

    def inputs(rng, lead):
        x, w = (jnp.asarray(rng.standard_normal(shape).astype(np.float32)) for shape in ((*lead, k), (groups, k, n)))
        of = rng.integers(0, groups, math.prod(lead))
        sizes = np.bincount(np.where(of == 1, 0, of), minlength=groups)
        return x, w, jnp.asarray(sizes.astype(np.int32))

    return inputs


def _scored(n: int, classes: int) -> Any:
    def inputs(rng, lead):
        h, w = (jnp.asarray(rng.standard_normal(shape).astype(np.float32)) for shape in ((*lead, n), (classes, n)))
        return ((h, w), jnp.float32(rng.standard_normal())), jnp.asarray(rng.integers(0, classes, lead).astype(np.int32))

    return inputs


def mixtures() -> list[Case]:
    """Mixtures of experts, their products, and the way of their losses through a model."""
    mixture = layers.mixture_of_experts
    busy = mixture(3, 2, 3, 1, activation="gelu", balance=0.5, z=0.5)
    inside = residual(serial(layers.rms_norm(4), mixture(4, 2, 2, 2, over="all", balance=0.5)))
    led = serial(auxiliary.start(layers.dense(3, 4)), auxiliary.add(inside), auxiliary.past(layers.dense(4, 2)))
    return [
        Case("mixture_of_experts", mixture(4, 3, 4, 2), positions(2, 4)),
        Case("mixture_of_experts, gelu, over all, losses", busy, positions(3, 3)),
        Case("ragged_dot", _ragged_dot(), _groups(3, 4, 2)),
        Case("auxiliary losses", led, positions(3, 3)),
        Case("auxiliary losses, to the loss", auxiliary.to_loss(linear_cross_entropy()), _scored(3, 4)),
        Case("moe", moe(5, 4, 2, 2, 4, 3, 2, hidden=2, dropout=0.25, auxiliary=True), ids(5, 3), keyed=True),
    ]
