"""A layer with feedback weights that are parameters and learn: Kolen and Pollack's mirror."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import Array

from ..errors import expect_float, expect_params, expect_same_dtype, expect_shape
from ..feedback import like_the_transpose, mirror
from ..layer import Layer, Y
from ..leaf import leaf, refusing
from ..linear import fold


class MirrorParams(NamedTuple):
    """forward: the parameters of the layer itself; back: B, of the shape of fold(w).T."""

    forward: Any
    back: Array

    WEIGHTS = ("back",)


def carried_by(
    feedback: Callable[..., Any], layer: Layer[Y], bwd: Callable[..., tuple[Any, Any]],
    output: Callable[[Any], Any] = lambda residuals: None, *, fast: Sequence[Callable[..., Any]] | None = None,
) -> Layer[Y]:  # fmt: skip
    """The layer with its error sent back by `feedback`, or by `mirrored` if that is `mirror`.

    bwd(residuals, ct_y, *, feedback): the backward of the layer; with the transpose it is layer.bwd. output, fast: as in
    `leaf`.
    """
    if fast is not None and layer.plain is not None:
        slow = carried_by(feedback, layer.plain, bwd, output)
        return carried_by(feedback, layer._replace(plain=None), fast[1], output)._replace(plain=slow)
    if feedback is mirror:
        return mirrored(layer, bwd, output)
    operator = like_the_transpose(layer.name, feedback)
    return layer._replace(bwd=refusing(layer.name, lambda residuals, ct_y: bwd(residuals, ct_y, feedback=operator), output))


def mirrored(
    layer: Layer[Y], bwd: Callable[..., tuple[Any, Any]], output: Callable[[Any], Any] = lambda residuals: None
) -> Layer[Y]:
    """The layer with its own matrix B instead of wᵀ: params are MirrorParams(forward, back).

    B gets the update of w, transposed: ct_back = ct_wᵀ. So with the same optimizer, and decay, B - wᵀ only decays (Kolen and
    Pollack 1994; Akrout et al. 2019, eq. 16).
    """
    who = f"mirrored {layer.name}"

    def init(key):
        forward_key, back_key = jax.random.split(key)
        return MirrorParams(layer.init(forward_key), fold(layer.init(back_key).w).T)

    def forward(params):
        expect_params(who, params, MirrorParams)
        w: Any = getattr(params.forward, "w", None)
        expect_float(who, "forward.w", w)
        expect_float(who, "back", params.back)
        expect_shape(who, "back", params.back, (*w.shape[-1:], math.prod(w.shape[:-1])))
        expect_same_dtype(who, "back", params.back, "w", w)
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

    return leaf(layer.name, init, apply, fwd, mirrored_bwd, lambda residuals: output(residuals[0]))
