"""A layer whose feedback weights are parameters, and learn: Kolen and Pollack's mirror."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array

from ..errors import expect_params, expect_shape
from ..feedback import mirror
from ..layer import Layer
from ..linear import fold


class MirrorParams(NamedTuple):
    """forward: the parameters of the layer itself; back: B, of the shape of fold(w).T."""

    forward: Any
    back: Array


def carried_by(feedback: Callable, layer: Layer, bwd: Callable[..., tuple[Any, Any]]) -> Layer:
    """The layer with its error sent back by `feedback`, by `mirrored` where that is `mirror`.

    bwd(residuals, ct_y, *, feedback): the layer's own, of which layer.bwd is that with the transpose.
    """
    if feedback is mirror:
        return mirrored(layer, bwd)
    return layer._replace(bwd=lambda residuals, ct_y: bwd(residuals, ct_y, feedback=feedback))


def mirrored(layer: Layer, bwd: Callable[..., tuple[Any, Any]]) -> Layer:
    """The layer with a matrix B of its own in the place of wᵀ: params are MirrorParams(forward, back).

    B gets the update of w, transposed: ct_back = ct_wᵀ, so that under the same optimizer, and decay, B - wᵀ only ever decays
    (Kolen and Pollack 1994; Akrout et al. 2019, eq. 16).
    """
    who = f"mirrored {layer.name}"

    def init(key):
        forward_key, back_key = jax.random.split(key)
        return MirrorParams(layer.init(forward_key), fold(layer.init(back_key).w).T)

    def forward(params):
        expect_params(who, params, MirrorParams)
        expect_shape(who, "back", params.back, fold(params.forward.w).T.shape)
        return params.forward

    def apply(params, x, *, key=None):
        return layer.apply(forward(params), x, key=key)

    def fwd(params, x, *, key=None):
        y, residuals = layer.fwd(forward(params), x, key=key)
        return y, (residuals, params.back)

    def mirrored_bwd(residuals, ct_y):
        residuals, back = residuals
        ct_forward, ct_x = bwd(residuals, ct_y, feedback=lambda w: back)
        return MirrorParams(ct_forward, fold(ct_forward.w).T), ct_x

    return Layer(layer.name, init, apply, fwd, mirrored_bwd)
